//! What the compiler says to the mistakes that people make first: one a file in `mistakes/`.
//!
//! After a change of a message: `TRYBUILD=overwrite cargo test -p sillage --test mistakes`, then
//! read what became of it.

#[test]
fn each_mistake_gets_its_own_sentence() {
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}
