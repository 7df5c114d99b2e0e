use super::*;
use std::collections::VecDeque;
use std::sync::Mutex;

/// Answers in order, and what was asked for when.
#[derive(Clone, Default)]
struct Town {
    answers: Arc<Mutex<VecDeque<Result<&'static str, ()>>>>,
    asked: Arc<Mutex<Vec<(KeySource, Instant)>>>,
}

const ONE: &str = r#"{"keys":[{"kty":"oct","k":"b25l"}]}"#;
const TWO: &str = r#"{"keys":[{"kty":"oct","k":"dHdv"}]}"#;

impl Town {
    fn with(answers: impl IntoIterator<Item = Result<&'static str, ()>>) -> Self {
        let town = Self::default();
        town.answers.lock().unwrap().extend(answers);
        town
    }

    /// Without an answer left it says nothing.
    fn get(&self) -> Get {
        let town = self.clone();
        Arc::new(move |source, limit| {
            town.asked.lock().unwrap().push((source, Instant::now()));
            let answer = town.answers.lock().unwrap().pop_front();
            Box::pin(async move {
                match answer {
                    Some(Ok(text)) => crate::answer::keys(text.as_bytes()),
                    Some(Err(())) => Err(GetError::Status(http::StatusCode::BAD_GATEWAY)),
                    None => {
                        tokio::time::sleep(limit).await;
                        Err(GetError::Elapsed(limit))
                    }
                }
            })
        })
    }

    fn build(&self) -> (Keys, Fetcher) {
        Fetcher::builder().with(self.get())
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn a() -> KeySource {
    KeySource::Uri("https://a/k".into())
}

fn wanted() -> WantedKeys {
    WantedKeys::from([(a(), Duration::from_secs(5))])
}

fn known(keys: &Keys) -> Option<String> {
    keys.load().get(&a()).map(ToString::to_string)
}

#[tokio::test(start_paused = true)]
async fn the_last_good_set_stays_when_nothing_or_nonsense_comes() {
    let town = Town::with([Err(()), Ok(ONE), Ok("{\"keys\": []}"), Err(()), Ok(TWO)]);
    let (keys, fetcher) = town.build();
    let mut feed = keys.feed();
    keys.want(wanted());
    let running = tokio::spawn(fetcher.run());
    feed.changed().await.unwrap();
    assert_eq!((known(&keys).as_deref(), town.asked()), (Some(ONE), 2));
    feed.changed().await.unwrap();
    assert_eq!((known(&keys).as_deref(), town.asked()), (Some(TWO), 5));
    let (succeeded, failed) = (2, 3);
    assert_eq!(*keys.fetches().load(), Fetches { succeeded, failed });
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(known(&keys).as_deref(), Some(TWO), "and nobody answers");
    assert!(town.asked() > 60, "they are asked all the same");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn sets_are_asked_for_every_twenty_minutes_or_a_little_sooner() {
    let town = Town::with((0..10).map(|_| Ok(ONE)));
    let (keys, fetcher) = town.build();
    keys.want(wanted());
    let feed = keys.feed();
    let running = tokio::spawn(fetcher.run());
    tokio::time::sleep(Duration::from_secs(4 * 1200)).await;
    let asked = town.asked.lock().unwrap().clone();
    assert!((4..=5).contains(&asked.len()), "{asked:?}");
    for pair in asked.windows(2) {
        let pause = (pair[1].1 - pair[0].1).as_secs_f64();
        assert!((1080.0..=1201.0).contains(&pause), "{pause}");
    }
    assert_eq!(feed.version(), 2, "the same set is no news");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_may_change_and_is_forgotten_when_it_is_not() {
    let town = Town::with([Ok(ONE), Ok(TWO)]);
    let (keys, fetcher) = town.build();
    let running = tokio::spawn(fetcher.run());
    let mut feed = keys.feed();
    tokio::time::sleep(Duration::from_secs(5000)).await;
    assert_eq!(town.asked(), 0, "nothing is wanted");
    keys.want(wanted());
    feed.changed().await.unwrap();
    keys.want(wanted());
    assert_eq!(known(&keys).as_deref(), Some(ONE));
    keys.want(WantedKeys::new());
    feed.changed().await.unwrap();
    assert!(keys.load().is_empty());
    keys.want(wanted());
    feed.changed().await.unwrap();
    assert_eq!((known(&keys).as_deref(), town.asked()), (Some(TWO), 2));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn whoever_begins_waits_for_a_first_try_of_each_and_no_longer() {
    let town = Town::with([Ok(ONE), Err(())]);
    let (keys, mut fetcher) = town.build();
    let began = Instant::now();
    fetcher.begin(Duration::from_secs(3)).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "nothing is wanted");
    let mut two = wanted();
    two.insert(
        KeySource::Issuer("https://b".into()),
        Duration::from_secs(5),
    );
    keys.want(two.clone());
    fetcher.begin(Duration::from_secs(3)).await;
    assert_eq!((known(&keys).as_deref(), town.asked()), (Some(ONE), 2));
    assert_eq!(began.elapsed(), Duration::ZERO, "a failure is a try");
    two.insert(KeySource::Uri("https://c".into()), Duration::from_secs(9));
    keys.want(two);
    fetcher.begin(Duration::from_secs(3)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(3), "it says nothing");
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_when_nobody_is_there_to_want_anything_else() {
    let town = Town::with([Ok(ONE), Ok(TWO)]);
    let (keys, fetcher) = town.build();
    let mut feed = keys.feed();
    keys.want(wanted());
    drop(keys);
    let running = tokio::spawn(fetcher.run());
    feed.changed().await.unwrap();
    let book = feed.changed().await.unwrap();
    assert_eq!(book.get(&a()).map(|keys| &**keys), Some(TWO));
    running.abort();
}
