//! Finding a rule allocates nothing.

// A counting allocator cannot be written without it; nothing else here is unsafe.
#![allow(unsafe_code)]

use http::{HeaderName, HeaderValue, Request};
use mesh_core::model::{
    Action, Condition, HeaderKey, HeaderMatch, PathMatch, Pattern, QueryMatch, RouteTable, Rule,
    StringMatch, ValueMatch, VirtualHost,
};
use mesh_route::{Head, find};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(mut work: impl FnMut()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn finding_a_rule_allocates_nothing() {
    let mut last = Condition::default();
    last.path = PathMatch::Regex(Pattern::new("/r/[0-9]+").unwrap());
    last.headers.push(HeaderMatch::text(
        HeaderKey::Header(HeaderName::from_static("x-a")),
        StringMatch::Regex(Pattern::new("b+").unwrap()),
    ));
    last.query.push(QueryMatch {
        name: "q".into(),
        value: ValueMatch::Text(StringMatch::Exact("1".into())),
    });
    let host = VirtualHost::new("all", ["*.EXAMPLE.com", "other"])
        .rule(Rule::prefix_to("/a", "a"))
        .rule(Rule::new(last, Action::default()));
    let mut table = RouteTable::new("t").host(host);
    table.ignore_port = true;
    let mut request = Request::get("http://Shop.example.COM:8080/r/12?x&q=1")
        .body(())
        .unwrap();
    for value in ["a", "b"] {
        let value = HeaderValue::from_static(value);
        request.headers_mut().append("x-a", value);
    }
    let head = Head::of(&request);
    // Compiles the table and warms up the caches of the regular expressions.
    assert_eq!(find(&table, &head, 0), Some((0, 1)));
    let counted = allocations(|| {
        for word in 0..100 {
            assert_eq!(find(&table, &head, word), Some((0, 1)));
        }
    });
    assert_eq!(counted, 0);
    assert_eq!(allocations(|| drop(Box::new(1))), 1, "the counter counts");
}
