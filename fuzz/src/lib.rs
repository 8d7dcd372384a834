//! Every reader of foreign bytes as a function that takes any: it may refuse them, and has to come back. Bytes stand for sequences of calls
//! of the C interface, too.
//!
//! `.ci/nightly` and `fuzz/run` feed them to libFuzzer; `tests/replay.rs` gives them the inputs of `corpus/`.

mod calls;
#[path = "../../examples/ros2/src/cdr.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod cdr;
mod checkpoints;
mod media;
#[path = "../../examples/ros2/src/messages.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod messages;
#[path = "../../tools/cli/src/rows.rs"]
#[allow(dead_code)]
mod rows;
mod texts;

use std::path::PathBuf;
use std::sync::LazyLock;

use gemmule::Model;

/// A target.
pub type Target = fn(&[u8]);

/// All targets, by the names of their folders in `corpus/`.
pub const TARGETS: [(&str, Target); 24] = [
    ("gguf", checkpoints::gguf),
    ("safetensors", checkpoints::safetensors),
    ("index", checkpoints::index),
    ("settings", checkpoints::settings),
    ("npz", checkpoints::npz),
    ("lora", checkpoints::lora),
    ("tokenizer", texts::tokenizer),
    ("token-table", texts::token_table),
    ("table-and-tokenizer", texts::table_and_tokenizer),
    ("jpeg", media::jpeg),
    ("png", media::png),
    ("gif", media::gif),
    ("webp", media::webp),
    ("bmp", media::bmp),
    ("tiff", media::tiff),
    ("mjpeg", media::mjpeg),
    ("y4m", media::y4m),
    ("raw", media::raw),
    ("mask-runs", texts::mask_runs),
    ("answer", texts::answer),
    ("form", texts::form),
    ("rows", texts::rows),
    ("cdr", media::cdr),
    ("calls", calls::calls),
];

/// The bundled model, whose tokenizer texts are read with.
static MODEL: LazyLock<Model> = LazyLock::new(|| Model::bundled().expect("it is sound"));

/// A folder of this process for files that readers want by name.
fn scratch(name: &str) -> PathBuf {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let memory = std::path::Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        tempfile::tempdir_in(parent).expect("a folder for files")
    });
    let folder = FOLDER.path().join(name);
    std::fs::create_dir_all(&folder).expect("a folder for files");
    folder
}
