use tidegate_model::Term;

use super::walk::may_follow;

#[test]
fn numbers_are_dense_or_repeated_in_a_higher_term() {
    let last = (Term(2), 10);
    for (next, gap, expected) in [
        ((Term(2), 11), false, true),
        ((Term(3), 11), false, true),
        ((Term(1), 11), false, false),
        ((Term(2), 12), false, false),
        ((Term(3), 12), false, false),
        ((Term(2), 12), true, true),
        ((Term(1), 12), true, false),
        ((Term(2), 10), false, false),
        ((Term(2), 10), true, false),
        ((Term(3), 10), false, true),
        ((Term(3), 1), false, true),
        ((Term(3), 0), false, false),
    ] {
        assert_eq!(may_follow(last, next, gap), expected, "{next:?} gap {gap}");
    }
    assert!(may_follow((Term(0), 0), (Term(1), 1), false));
    assert!(!may_follow((Term(0), 0), (Term(1), 2), false));
}
