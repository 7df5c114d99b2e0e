use super::*;
use proptest::prelude::*;

/// Decodes input that comes in pieces of these sizes, and then ends. Returns the data, the trailers,
/// and how much was consumed.
fn decode(
    length: Length,
    input: &[u8],
    pieces: &[usize],
) -> Result<(Vec<u8>, Option<HeaderMap>, usize), BodyError> {
    let mut decoder = Decoder::new(length, &Limits::default());
    let (mut from, mut to) = (0, 0);
    let mut pieces = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
    let mut data = Vec::new();
    loop {
        match decoder.decode(&input[from..to])? {
            Decoded::Data { skip, len } => {
                assert!(len > 0);
                data.extend_from_slice(&input[from + skip..from + skip + len]);
                from += skip + len;
            }
            Decoded::More { skip } => {
                assert_eq!(skip, to - from);
                from = to;
                if to == input.len() {
                    decoder.close()?;
                } else {
                    let piece = pieces.next().unwrap().max(1);
                    to = to.saturating_add(piece).min(input.len());
                }
            }
            Decoded::End { skip, trailers } => {
                assert!(decoder.is_done());
                return Ok((data, trailers, from + skip));
            }
        }
    }
}

fn chunked(input: &str) -> Result<(String, usize), BodyError> {
    let (data, _, consumed) = decode(Length::Chunked, input.as_bytes(), &[])?;
    Ok((String::from_utf8(data).unwrap(), consumed))
}

#[test]
fn chunks_are_put_together() {
    for (input, data) in [
        ("0\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("3\r\nabc\r\n00002\r\nde\r\n000\r\n\r\n", "abcde"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("a;b=c;d=\"e\"\r\n0123456789\r\n0;f\r\n\r\n", "0123456789"),
        ("3 \t;x\r\nabc\r\n0 \r\n\r\n", "abc"),
    ] {
        let expected = Ok((data.to_owned(), input.len()));
        assert_eq!(chunked(&format!("{input}next")), expected, "{input:?}");
    }
}

#[test]
fn framing_that_others_may_read_otherwise_is_refused() {
    for (input, error) in [
        ("\r\n", BodyError::ChunkSize),
        ("x\r\n", BodyError::ChunkSize),
        ("-1\r\n", BodyError::ChunkSize),
        ("0x3\r\nabc\r\n", BodyError::ChunkSize),
        (" 3\r\nabc\r\n", BodyError::ChunkSize),
        ("3 3\r\nabc\r\n", BodyError::ChunkSize),
        ("3\nabc\r\n", BodyError::ChunkSize),
        ("3\rabc", BodyError::ChunkSize),
        ("11111111111111111\r\n", BodyError::ChunkSize),
        ("3;a\nabc\r\n", BodyError::Extension),
        ("3;a\0\r\nabc\r\n", BodyError::Extension),
        ("3\r\nabcd\r\n", BodyError::ChunkEnd),
        ("3\r\nabc\n0\r\n\r\n", BodyError::ChunkEnd),
        ("0\r\na: b\n\n", BodyError::Trailers),
        ("0\r\na\rb\r\n\r\n", BodyError::Trailers),
        ("0\r\na b\r\n\r\n", BodyError::Trailers),
        ("3\r\nabc\r\n0\r\n", BodyError::Incomplete),
        ("3\r\nab", BodyError::Incomplete),
        ("", BodyError::Incomplete),
    ] {
        assert_eq!(chunked(input), Err(error), "{input:?}");
    }
}

#[test]
fn what_a_peer_may_say_around_its_data_is_bounded() {
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(17 << 10));
    assert_eq!(chunked(&long), Err(BodyError::Extension));
    let many = "1;xxxxxxxx\r\na\r\n".repeat(3 << 10);
    assert_eq!(chunked(&many), Err(BodyError::Extension));
    let trailers = format!("0\r\na: {}\r\n\r\n", "x".repeat(17 << 10));
    assert_eq!(chunked(&trailers), Err(BodyError::Trailers));
    let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert_eq!(chunked(&trailers), Err(BodyError::Trailers));
}

#[test]
fn trailers_cannot_change_what_the_message_is() {
    let input = "0\r\nGrpc-Status: 0\r\ncontent-length: 5\r\nhost: b\r\n\r\n";
    let (_, trailers, _) = decode(Length::Chunked, input.as_bytes(), &[]).unwrap();
    let trailers = trailers.unwrap();
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["grpc-status"], "0");
}

#[test]
fn a_body_ends_where_its_length_says() {
    let read = |length, input: &str| {
        decode(length, input.as_bytes(), &[]).map(|(data, _, consumed)| (data.len(), consumed))
    };
    assert_eq!(read(Length::Exact(3), "abcdef"), Ok((3, 3)));
    assert_eq!(read(Length::Exact(0), "abc"), Ok((0, 0)));
    assert_eq!(read(Length::Exact(4), "abc"), Err(BodyError::Incomplete));
    assert_eq!(
        read(Length::Exact(u64::MAX), "abc"),
        Err(BodyError::Incomplete)
    );
    assert_eq!(read(Length::UntilClose, "abc"), Ok((3, 3)));
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just("3\r\nabc\r\n"),
        Just("0\r\n"),
        Just("\r\n"),
        Just("1;x\r\n-\r\n"),
        Just("a: b\r\n"),
        Just("\r"),
        Just("5"),
        Just(";"),
    ];
    let noise = proptest::collection::vec(any::<u8>(), 0..20);
    let parts = proptest::collection::vec(part, 0..12);
    prop_oneof![3 => parts.prop_map(|parts| parts.concat().into_bytes()), 1 => noise]
}

proptest! {
    #[test]
    fn a_body_is_the_same_however_it_is_cut(
        input in bodies(),
        length in prop_oneof![
            Just(Length::Chunked),
            Just(Length::UntilClose),
            (0u64..30).prop_map(Length::Exact),
        ],
        pieces in proptest::collection::vec(1usize..5, 0..30),
    ) {
        prop_assert_eq!(decode(length, &input, &[]), decode(length, &input, &pieces));
    }
}
