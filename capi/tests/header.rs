//! The committed header is what cbindgen makes of the sources.

use std::path::Path;

#[test]
fn the_header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut made = Vec::new();
    let builder = cbindgen::Builder::new().with_config(config).with_src(root.join("src/lib.rs"));
    builder.generate().unwrap().write(&mut made);
    // Rust's heading for what the caller has to promise; and C89 has no comments to the end of a line, and no comma at an enumeration's
    // end.
    let made = String::from_utf8(made).unwrap().replace("# Safety", "The caller promises:");
    let made = made.replace("  // extern \"C\"", "").replace(" // __cplusplus", "").replace(",\n}", "\n}");
    // What cbindgen puts behind the guard belongs in front of its end.
    let end = "#endif  /* GEMMULE_H */\n";
    let made = made.replace(end, "").trim_end().to_owned() + "\n\n" + end;
    let made = made.replace("#endif \n", "#endif\n");
    let path = root.join("include/gemmule.h");
    if std::env::var_os("GEMMULE_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == made,
        "include/gemmule.h is out of date: GEMMULE_WRITE_HEADER=1 cargo test -p gemmule-capi --test header"
    );
}
