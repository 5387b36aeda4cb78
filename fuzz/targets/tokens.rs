//! The compact format of values in shared memory: bytes are tokens or an error, and tokens written again are the same.

use rsmp_core::frame::compact::{Reader, Token, write};

/// Bytes of the longest head of a token, without its text.
const LONGEST_HEAD: usize = 10;

pub fn run(data: &[u8]) {
    let mut reader = Reader::new(data);
    let mut tokens = Vec::new();
    let mut used = 0;
    loop {
        // The short ways give what the long one gives, or nothing.
        let (number, string) = (reader.clone().int(), reader.clone().short_text());
        let Ok((token, remember)) = reader.token() else {
            assert!(number.is_none() && string.is_none());
            break;
        };
        assert!(number.is_none_or(|value| token == Token::Int(value)));
        assert!(string.is_none_or(|(text, numbered)| (token, remember) == (Token::Str(text), numbered)));
        let rest = data.len() - used;
        let text = match token {
            Token::Str(text) | Token::Bytes(text) => text.len(),
            // What a reader sets memory aside for is in the message.
            Token::List(items) | Token::Tuple(items) => {
                assert!(items < rest);
                0
            }
            Token::Dict(pairs) => {
                assert!(2 * pairs < rest);
                0
            }
            _ => 0,
        };
        used += 1;
        assert!(text < rest && used <= data.len());
        tokens.push((token, remember));
    }
    let mut again = Vec::new();
    for (token, remember) in &tokens {
        let before = again.len();
        write(&mut again, *token, *remember);
        let text = match token {
            Token::Str(text) | Token::Bytes(text) => text.len(),
            _ => 0,
        };
        assert!(again.len() - before <= LONGEST_HEAD + text);
    }
    // The heads of containers promise items that may follow only in the first message.
    again.resize(again.len() + data.len() + 1, 0);
    let mut reader = Reader::new(&again);
    for (token, remember) in tokens {
        let (back, remembered) = reader.token().expect("what was written is read");
        let same = match (back, token) {
            (Token::Float(one), Token::Float(other)) => one.to_bits() == other.to_bits(),
            _ => back == token,
        };
        assert!(same, "{token:?} came back as {back:?}");
        let takes_number =
            matches!(token, Token::Str(_) | Token::Bytes(_) | Token::List(_) | Token::Tuple(_) | Token::Dict(_));
        assert!(!takes_number || remembered == remember);
    }
}
