//! A program that is nothing but a zygote, for tests and benches of this crate, which have no `layeryard`.

fn main() {
    if std::env::args().nth(1).as_deref() == Some("zygote") {
        runtime::zygote_main()
    }
}
