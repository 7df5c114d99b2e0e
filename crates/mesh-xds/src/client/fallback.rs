//! Which of several servers is spoken to (gRFC A71), without I/O.

/// Which of several servers is spoken to, the best first, by the rules of gRFC A71:
///
/// * It begins with the first.
/// * One that cannot be reached, or ends its stream before it has answered, is left for the next
///   one at once, but only while something is missing that was asked for. A resource that does not
///   exist is not missing.
/// * One whose stream ends after it has answered is not left: it is called again after a while.
/// * After the last one it starts over, after a while.
/// * Who has everything waits for the first one; if something is missing later, the next one is
///   called at once.
/// * While another one than the first is spoken to, better ones are tried again and again. The
///   first of them that answers is spoken to from then on.
///
/// ```
/// use mesh_xds::client::{Fallback, Next};
///
/// let mut servers = Fallback::new(2);
/// assert_eq!(servers.at(), 0);
/// assert_eq!(servers.failed(false, false), Next::AtOnce);
/// assert_eq!(servers.at(), 1);
/// servers.better(0);
/// assert_eq!(servers.at(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Fallback {
    count: usize,
    at: usize,
    /// The first one has failed, and another one was not needed.
    first_is_down: bool,
}

/// When the server that is next is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once.
    AtOnce,
    /// After a back-off.
    Later,
}

// === impl Fallback ===

impl Fallback {
    /// For so many servers.
    pub fn new(count: usize) -> Self {
        Self {
            count,
            at: 0,
            first_is_down: false,
        }
    }

    /// The server that is spoken to, or is to be called next.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The server could not be reached, or its stream has ended. `answered` says whether anything
    /// came on that stream, `complete` whether all that is asked for is there.
    pub fn failed(&mut self, answered: bool, complete: bool) -> Next {
        self.first_is_down = false;
        if answered {
            return Next::Later;
        }
        if complete {
            self.first_is_down = true;
            self.at = 0;
            return Next::Later;
        }
        self.at += 1;
        if self.at < self.count {
            return Next::AtOnce;
        }
        self.at = 0;
        Next::Later
    }

    /// Something that is asked for is missing while the back-off lasts. Returns whether another
    /// server is to be called now.
    pub fn missing(&mut self) -> bool {
        let another = self.first_is_down && self.count > 1;
        if another {
            self.first_is_down = false;
            self.at = 1;
        }
        another
    }

    /// A better server has answered.
    pub fn better(&mut self, at: usize) {
        self.first_is_down = false;
        self.at = at.min(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_server_that_cannot_be_reached_is_left_only_while_something_is_missing() {
        let mut servers = Fallback::new(3);
        assert_eq!(
            (servers.failed(false, true), servers.at()),
            (Next::Later, 0)
        );
        assert_eq!(
            (servers.failed(false, false), servers.at()),
            (Next::AtOnce, 1)
        );
        assert_eq!(
            (servers.failed(false, false), servers.at()),
            (Next::AtOnce, 2)
        );
    }

    #[test]
    fn a_server_that_has_answered_is_called_again_and_not_left() {
        let mut servers = Fallback::new(2);
        assert_eq!(
            (servers.failed(true, false), servers.at()),
            (Next::Later, 0)
        );
        servers.failed(false, false);
        assert_eq!(
            (servers.failed(true, false), servers.at()),
            (Next::Later, 1)
        );
    }

    #[test]
    fn after_the_last_server_it_starts_over_after_a_while() {
        let mut servers = Fallback::new(2);
        servers.failed(false, false);
        assert_eq!(
            (servers.failed(false, false), servers.at()),
            (Next::Later, 0)
        );
        let mut only = Fallback::new(1);
        assert_eq!((only.failed(false, false), only.at()), (Next::Later, 0));
    }

    #[test]
    fn what_is_missing_later_calls_the_next_server_at_once() {
        let mut servers = Fallback::new(2);
        assert!(!servers.missing(), "nothing has failed");
        servers.failed(false, true);
        assert!(servers.missing());
        assert_eq!(servers.at(), 1);
        assert!(!servers.missing(), "it is being called");
        let mut only = Fallback::new(1);
        only.failed(false, true);
        assert!(!only.missing(), "there is no other");
    }

    #[test]
    fn a_better_server_that_answers_is_spoken_to_from_then_on() {
        let mut servers = Fallback::new(3);
        servers.failed(false, false);
        servers.failed(false, false);
        servers.better(1);
        assert_eq!(servers.at(), 1);
    }

    proptest! {
        #[test]
        fn it_is_always_one_of_the_servers(
            count in 1_usize..5,
            steps in prop::collection::vec((0_u8..3, any::<bool>(), any::<bool>()), 0..40),
        ) {
            let mut servers = Fallback::new(count);
            for (step, answered, complete) in steps {
                match step {
                    0 => drop(servers.failed(answered, complete)),
                    1 => drop(servers.missing()),
                    _ => servers.better(usize::from(answered)),
                }
                prop_assert!(servers.at() < count);
            }
        }
    }
}
