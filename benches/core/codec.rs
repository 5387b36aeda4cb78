//! The codec: what writing and reading values costs without Python's objects.

use divan::{Bencher, black_box};
use rsmp_core::frame::compact::{Reader, Token, write};
use rsmp_core::frame::scalar::{self, Scalar};

fn main() {
    divan::main();
}

/// `{"number": 1, "name": "text", "values": [1.5, 2.5]}`.
const DICT: [Token<'static>; 9] = [
    Token::Dict(3),
    Token::Str(b"number"),
    Token::Int(1),
    Token::Str(b"name"),
    Token::Str(b"text"),
    Token::Str(b"values"),
    Token::List(2),
    Token::Float(1.5),
    Token::Float(2.5),
];

fn numbers(count: u32) -> Vec<Token<'static>> {
    std::iter::once(Token::List(count as usize)).chain((0..count).map(|n| Token::Int(n.into()))).collect()
}

fn written(tokens: &[Token<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for token in tokens {
        write(&mut out, *token, false);
    }
    out
}

fn write_all(bencher: Bencher, tokens: &[Token<'_>]) {
    let mut out = written(tokens);
    bencher.bench_local(|| {
        out.clear();
        for token in black_box(tokens) {
            write(&mut out, *token, false);
        }
        out.len()
    });
}

fn read_all(bencher: Bencher, tokens: &[Token<'_>]) {
    let message = written(tokens);
    bencher.bench_local(|| {
        let mut reader = Reader::new(black_box(&message));
        let mut count = 0;
        while !reader.is_empty() {
            black_box(reader.token().expect("a token"));
            count += 1;
        }
        assert_eq!(count, tokens.len());
    });
}

#[divan::bench]
fn write_int(bencher: Bencher) {
    write_all(bencher, &[Token::Int(12_345)]);
}

#[divan::bench]
fn read_int(bencher: Bencher) {
    read_all(bencher, &[Token::Int(12_345)]);
}

#[divan::bench]
fn write_small_dict(bencher: Bencher) {
    write_all(bencher, &DICT);
}

#[divan::bench]
fn read_small_dict(bencher: Bencher) {
    read_all(bencher, &DICT);
}

#[divan::bench(args = [100, 10_000])]
fn write_list_of_ints(bencher: Bencher, count: u32) {
    write_all(bencher, &numbers(count));
}

#[divan::bench(args = [100, 10_000])]
fn read_list_of_ints(bencher: Bencher, count: u32) {
    read_all(bencher, &numbers(count));
}

/// An int as pickle writes it, for connections.
#[divan::bench]
fn pickle_int_and_back(bencher: Bencher) {
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        assert!(scalar::write(black_box(Scalar::Int(12_345)), 5, &mut out));
        assert_eq!(scalar::read(&out), Some(Scalar::Int(12_345)));
    });
}
