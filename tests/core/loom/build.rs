fn main() {
    println!("cargo::rustc-cfg=rsmp_loom");
}
