//! Stands in for `layeryard zygote` in this crate's tests.

fn main() {
    runtime::zygote_main()
}
