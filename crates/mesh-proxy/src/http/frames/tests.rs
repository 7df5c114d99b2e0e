use super::*;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A frame by its head alone.
fn head(head: [u8; HEAD]) -> Frame {
    let mut bytes = [0; HEAD + ERROR];
    bytes[..HEAD].copy_from_slice(&head);
    Frame::of(bytes)
}

/// What a connection that says this is broken off for, after how many frames.
fn judged(frames: &[(u8, u8, u32, usize)]) -> Result<(), (Http2Stat, usize)> {
    let mut counts = Counts::default();
    for (at, (kind, flags, stream, length)) in frames.iter().enumerate() {
        let frame = Frame {
            length: *length,
            kind: *kind,
            flags: *flags,
            stream: *stream,
            error: 0,
        };
        counts.received(frame).map_err(|flood| (flood, at))?;
    }
    Ok(())
}

#[test]
fn priorities_and_window_updates_are_in_proportion_to_streams() {
    assert_eq!(judged(&[(PRIORITY, 0, 1, 5); 100]), Ok(()));
    assert_eq!(
        judged(&[(PRIORITY, 0, 1, 5); 101]),
        Err((Http2Stat::PriorityFramesFlood, 100))
    );
    let mut frames = vec![(HEADERS, 4, 1, 10)];
    frames.extend([(PRIORITY, 0, 1, 5); 200]);
    assert_eq!(judged(&frames), Ok(()));
    frames.push((PRIORITY, 0, 1, 5));
    assert_eq!(judged(&frames), Err((Http2Stat::PriorityFramesFlood, 201)));

    assert_eq!(judged(&[(WINDOW_UPDATE, 0, 0, 4); 5]), Ok(()));
    assert_eq!(
        judged(&[(WINDOW_UPDATE, 0, 0, 4); 6]),
        Err((Http2Stat::WindowUpdateFramesFlood, 5))
    );
    let mut frames = vec![
        (HEADERS, 4, 1, 10),
        (HEADERS, 4, 1, 10),
        (HEADERS, 4, 3, 10),
    ];
    frames.extend([(WINDOW_UPDATE, 0, 0, 4); 9]);
    assert_eq!(judged(&frames), Ok(()));
    frames.push((WINDOW_UPDATE, 0, 0, 4));
    assert_eq!(
        judged(&frames),
        Err((Http2Stat::WindowUpdateFramesFlood, 12))
    );
}

#[test]
fn each_frame_of_data_that_we_send_may_be_answered_by_updates() {
    let mut counts = Counts::default();
    let update = head([0, 0, 4, WINDOW_UPDATE, 0, 0, 0, 0, 0]);
    counts.sent(head([0, 1, 0, DATA, 0, 0, 0, 0, 1]));
    counts.sent(head([0, 1, 0, HEADERS, 0, 0, 0, 0, 1]));
    for _ in 0..25 {
        counts.received(update).unwrap();
    }
    let flood = counts.received(update).unwrap_err();
    assert_eq!(flood, Http2Stat::WindowUpdateFramesFlood);
}

#[test]
fn frames_without_content_are_taken_one_at_a_time() {
    let (empty, full) = ((DATA, 0, 1, 0), (DATA, 0, 1, 1));
    assert_eq!(judged(&[empty, full, empty, full, empty]), Ok(()));
    assert_eq!(
        judged(&[full, empty, empty]),
        Err((Http2Stat::EmptyFramesFlood, 2))
    );
    let end = (DATA, END_STREAM, 1, 0);
    assert_eq!(
        judged(&[empty, end, empty, end]),
        Ok(()),
        "it says something"
    );
    assert_eq!(
        judged(&[(HEADERS, 0, 1, 0), (CONTINUATION, 0, 1, 0)]),
        Err((Http2Stat::EmptyFramesFlood, 1))
    );
}

#[tokio::test(start_paused = true)]
async fn frames_that_want_answers_are_counted_by_the_second_and_by_what_else_comes() {
    let mut counts = Counts::default();
    let ping = head([0, 0, 8, PING, 0, 0, 0, 0, 0]);
    let answer = head([0, 0, 8, PING, ACK, 0, 0, 0, 0]);
    for _ in 0..3 {
        for _ in 0..1000 {
            counts.received(ping).unwrap();
            counts.received(answer).unwrap();
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    for _ in 0..1000 {
        counts.received(ping).unwrap();
    }
    counts.sent(head([0, 1, 0, DATA, 0, 0, 0, 0, 1]));
    counts.received(ping).unwrap();
    counts
        .received(head([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]))
        .unwrap();
    assert_eq!(counts.received(ping), Err(Http2Stat::ControlFlood));
}

#[tokio::test]
async fn a_flood_breaks_the_connection_off_and_says_what_it_was() {
    let mut said = vec![b'x'; PREFACE];
    said.extend(frame(4, 0, 0, &[]));
    said.extend(frame(DATA, 0, 1, &[]).repeat(2));
    let mut counted = Counted::new(&said[..], Arc::default());
    let flood = counted.flood();
    let mut read = Vec::new();
    counted.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(flood.get(), Some(&Http2Stat::EmptyFramesFlood));
}

#[tokio::test]
async fn what_is_written_is_counted_however_it_is_cut() {
    let mut sent = frame(HEADERS, 4, 1, b"head");
    sent.extend(frame(DATA, 0, 1, &[9; 700]).repeat(3));
    let (ours, mut theirs) = tokio::io::duplex(100);
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.map(|_| all)
    });
    let mut counted = Counted::new(ours, Arc::default());
    let mut slices = [io::IoSlice::new(&sent[..7]), io::IoSlice::new(&sent[7..])];
    let mut left = &mut slices[..];
    while !left.is_empty() {
        let written = counted.write_vectored(left).await.unwrap();
        io::IoSlice::advance_slices(&mut left, written);
    }
    assert_eq!(counted.counts.data_sent, 3);
    drop(counted);
    assert_eq!(reading.await.unwrap().unwrap(), sent);
}

proptest! {
    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut(
        frames in proptest::collection::vec((0u8..10, any::<u8>(), 0u32..1 << 31, 0usize..20), 0..12),
        cuts in proptest::collection::vec(1usize..30, 1..60),
    ) {
        let mut bytes = vec![0; PREFACE];
        for (kind, flags, stream, length) in &frames {
            bytes.extend(frame(*kind, *flags, *stream, &vec![7; *length]));
        }
        let mut scanner = Counted::new((), Arc::default()).received;
        let mut found = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            scanner.scan(now, |frame| {
                let error = if (frame.kind, frame.length) == (RST_STREAM, 4) { 0x0707_0707 } else { 0 };
                assert_eq!(frame.error, error);
                found.push((frame.kind, frame.flags, frame.stream, frame.length));
            });
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(found, frames);
    }
}
