"""Count the words of a directory of text files with a pool, one file per task, and merge the counts."""

import random
import re
import tempfile
from collections import Counter
from multiprocessing import Pool
from pathlib import Path

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
]


def write_texts(directory, files=60, words=12_000):
    generator = random.Random(7)
    for number in range(files):
        chosen = generator.choices(WORDS, weights=range(len(WORDS), 0, -1), k=words)
        (directory / f"text{number:03}.txt").write_text(" ".join(chosen))


def count_words(path):
    return Counter(re.findall(r"\w+", path.read_text().lower()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_texts(directory)
        paths = sorted(directory.glob("*.txt"))
        total = Counter()
        with Pool() as pool:
            for counts in pool.imap_unordered(count_words, paths, chunksize=4):
                total.update(counts)
    print(f"{total.total()} words in {len(paths)} files")
    for word, count in total.most_common(8):
        print(f"{count:7} {word}")
