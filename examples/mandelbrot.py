"""A picture of the Mandelbrot set, computed row by row by a pool and written as PNG without further libraries."""

import struct
import sys
import zlib
from multiprocessing import Pool

WIDTH, HEIGHT, DEPTH = 360, 240, 60


def row(y):
    pixels = bytearray()
    imaginary = (y - HEIGHT / 2) * 2.4 / HEIGHT
    for x in range(WIDTH):
        c = complex((x - WIDTH * 0.7) * 3.2 / WIDTH, imaginary)
        z, steps = 0j, 0
        while abs(z) <= 2 and steps < DEPTH:
            z = z * z + c
            steps += 1
        shade = 255 - 255 * steps // DEPTH
        pixels += bytes((shade * shade // 255, shade, min(255, shade + 40) if shade else 0))
    return bytes(pixels)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path, rows):
    data = zlib.compress(b"".join(b"\0" + each for each in rows), 9)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


if __name__ == "__main__":
    path = sys.argv[1] if len(sys.argv) > 1 else "mandelbrot.png"
    with Pool() as pool:
        rows = list(pool.imap(row, range(HEIGHT), chunksize=4))
    write_png(path, rows)
    print(f"{path}: {WIDTH} x {HEIGHT}, checksum {zlib.crc32(b''.join(rows)):08x}")
