//! Sequences of calls of the C interface, as a program may make them: what its manual allows, with handles, strings, structs and arrays of
//! every kind. Memory is had in pieces of the sizes that are told, so that AddressSanitizer sees a step beyond.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::LazyLock;

use gemmule_calls::*;

/// Calls of one sequence.
const MOST_CALLS: usize = 40;

/// Handles of one kind at a time.
const MOST_HANDLES: usize = 3;

/// What a program may pass as a text; the last is no UTF-8.
static TEXTS: LazyLock<Vec<CString>> = LazyLock::new(|| {
    let texts = [
        &b"caption en"[..],
        b"",
        b"what color is the circle?",
        b"<image>what shape is it?",
        b"detect circle ; square",
        b"[a-z ]*",
        b"(yes|no)",
        b"<loc0100><loc0200><loc0300><loc0400> thing",
        b"(",
        b"portable",
        b"no such thing",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/pictures/shape.png").as_bytes(),
        b"/nowhere/at/all.png",
        b"\xff\xfe",
    ];
    texts.map(|text| CString::new(text).expect("no zero byte")).into()
});

/// The bytes that choose.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count.max(1)
    }

    fn text(&mut self) -> *const c_char {
        let at = self.below(TEXTS.len() + 1);
        TEXTS.get(at).map_or(null(), |text| text.as_ptr())
    }

    /// One of these handles, or NULL.
    fn handle<T>(&mut self, handles: &[*mut T]) -> *mut T {
        let at = self.below(handles.len() + 1);
        handles.get(at).copied().unwrap_or(null_mut())
    }

    /// Takes one of these handles away, or NULL.
    fn take<T>(&mut self, handles: &mut Vec<*mut T>) -> *mut T {
        let at = self.below(handles.len() + 1);
        if at < handles.len() { handles.swap_remove(at) } else { null_mut() }
    }
}

/// Memory of so many bytes for a struct that says its size.
fn room(bytes: usize) -> Vec<u64> {
    vec![0; bytes / size_of::<u64>()]
}

#[derive(Default)]
struct Program {
    models: Vec<*mut gemmule_model>,
    sessions: Vec<*mut gemmule_session>,
    answers: Vec<*mut gemmule_answer>,
    cancels: Vec<*mut gemmule_cancel>,
}

/// Stops an answer after so many pieces.
unsafe extern "C-unwind" fn on_text(text: *const c_char, length: usize, user: *mut c_void) -> gemmule_bool {
    // SAFETY: the interface gives `length` bytes; `user` is the count that `ask` passes.
    let (bytes, left) = unsafe { (std::slice::from_raw_parts(text.cast::<u8>(), length), &mut *user.cast::<u8>()) };
    assert!(std::str::from_utf8(bytes).is_ok_and(|text| !text.is_empty()));
    *left = left.saturating_sub(1);
    u8::from(*left > 0)
}

impl Program {
    fn open(&mut self, choices: &mut Choices<'_>) {
        let path = if choices.byte() < 200 { null() } else { choices.text() };
        let mmproj = if choices.byte() < 240 { null() } else { choices.text() };
        let mut model = null_mut();
        // SAFETY: strings end with a zero byte, and there is a place.
        let status =
            unsafe { gemmule_model_open(path, mmproj, if choices.byte() == 255 { null_mut() } else { &mut model }) };
        assert_eq!(status == gemmule_status::GEMMULE_OK, !model.is_null());
        // SAFETY: it was made here, and nobody else has it.
        unsafe { gemmule_model_free(keep(&mut self.models, model)) };
    }

    fn session(&mut self, choices: &mut Choices<'_>) {
        let size = [16 + size_of::<usize>(), size_of::<gemmule_session_options>(), 64, 128][choices.below(4)];
        let mut memory = room(size);
        let options: *mut gemmule_session_options = memory.as_mut_ptr().cast();
        let model = choices.handle(&self.models);
        let mut session = null_mut();
        // SAFETY: the options have `size` bytes, and only fields within are written; the handles are alive.
        let status = unsafe {
            gemmule_session_options_init_sized(options, size);
            (&raw mut (*options).threads).write(1 + choices.below(2) as u32);
            if choices.byte() > 240 {
                (&raw mut (*options).isa).write(choices.text());
            }
            if size >= size_of::<gemmule_session_options>() {
                (&raw mut (*options).cancel).write(choices.handle(&self.cancels));
            }
            if size > size_of::<gemmule_session_options>() && choices.byte() > 200 {
                *memory.last_mut().expect("it is larger") = 1;
            }
            gemmule_session_new(model, if choices.byte() > 250 { null() } else { options }, &mut session)
        };
        assert_eq!(status == gemmule_status::GEMMULE_OK, !session.is_null());
        // SAFETY: it was made here, and nobody else has it.
        unsafe { gemmule_session_free(keep(&mut self.sessions, session)) };
    }

    fn show(&mut self, choices: &mut Choices<'_>) {
        let session = choices.handle(&self.sessions);
        let count = choices.below(3);
        let pixels: Vec<Vec<u8>> =
            (0..count).map(|_| vec![choices.byte(); choices.below(256) * choices.below(40)]).collect();
        let mut side = |_| (choices.below(20) as u32, choices.below(20) as u32);
        let sides: Vec<(u32, u32)> = pixels.iter().map(&mut side).collect();
        if choices.byte() & 1 == 0 {
            let image = |(data, (width, height)): (&Vec<u8>, &(u32, u32))| gemmule_image {
                data: data.as_ptr(),
                size: data.len(),
                width: *width,
                height: *height,
                row_step: choices.below(90),
                format: choices.below(12) as u32,
            };
            let images: Vec<gemmule_image> = pixels.iter().zip(&sides).map(image).collect();
            // SAFETY: the session is alive or NULL; each image's data has its size.
            unsafe { gemmule_session_show(session, images.as_ptr(), count) };
            return;
        }
        let size = [size_of::<gemmule_frame>(), size_of::<gemmule_frame>() + 16][choices.below(2)];
        let mut memory = room(size * count);
        let frames: *mut gemmule_frame = memory.as_mut_ptr().cast();
        for (index, (data, (width, height))) in pixels.iter().zip(&sides).enumerate() {
            // SAFETY: there are `count` structs of `size` bytes.
            unsafe {
                let frame = frames.byte_add(index * size);
                gemmule_frame_init_sized(frame, if choices.byte() > 250 { choices.below(size) / 8 * 8 } else { size });
                (*frame).data = data.as_ptr();
                (*frame).bytes = data.len();
                (*frame).width = *width;
                (*frame).height = *height;
                (*frame).row_step = choices.below(90);
                (*frame).chroma_step = choices.below(60);
                (*frame).luma_rows = choices.below(40) as u32;
                (*frame).format = choices.below(12) as u32;
                (*frame).matrix = choices.below(5) as u32;
                (*frame).range = choices.below(4) as u32;
            }
        }
        // SAFETY: the session is alive or NULL; each frame's data has its size.
        unsafe { gemmule_session_show_frames(session, frames, count) };
    }

    fn show_files(&mut self, choices: &mut Choices<'_>) {
        let session = choices.handle(&self.sessions);
        let paths: Vec<*const c_char> = (0..choices.below(3)).map(|_| choices.text()).collect();
        // SAFETY: strings end with a zero byte.
        unsafe { gemmule_session_show_files(session, paths.as_ptr(), paths.len()) };
    }

    fn features(&mut self, choices: &mut Choices<'_>) {
        let (from, to) = (choices.handle(&self.sessions), choices.handle(&self.sessions));
        let (mut features, mut images, mut tokens, mut hidden) = (null(), 0, 0, 0);
        // SAFETY: the sessions are alive or NULL; the features are read before anything else is shown.
        let copied = unsafe {
            if gemmule_session_features(from, &mut features, &mut images, &mut tokens, &mut hidden)
                != gemmule_status::GEMMULE_OK
            {
                return;
            }
            if images == 0 {
                Vec::new()
            } else {
                std::slice::from_raw_parts(features, images * tokens * hidden).to_vec()
            }
        };
        let len = if choices.byte() > 200 { choices.below(copied.len() + 1) } else { copied.len() };
        // SAFETY: there are so many numbers.
        unsafe { gemmule_session_show_features(to, copied.as_ptr(), len.min(copied.len())) };
    }

    fn ask(&mut self, choices: &mut Choices<'_>) {
        let size =
            [size_of::<gemmule_generate_options>(), size_of::<gemmule_generate_options>() + 8, 128][choices.below(3)];
        let mut memory = room(size);
        let options: *mut gemmule_generate_options = memory.as_mut_ptr().cast();
        let session = choices.handle(&self.sessions);
        let mut left = choices.byte();
        let mut answer = null_mut();
        // SAFETY: the options have `size` bytes; strings end with a zero byte; the session is alive or NULL.
        let status = unsafe {
            gemmule_generate_options_init_sized(options, size);
            (*options).max_tokens = choices.below(9) as u32;
            (*options).temperature = [0.0, 1.0, f32::NAN, -1.0, 1e30][choices.below(9).min(4)];
            (*options).top_k = choices.below(5) as u32;
            (*options).top_p = [1.0, 0.5, 0.0, f32::INFINITY][choices.below(4)];
            if choices.byte() > 200 {
                (*options).pattern = choices.text();
            }
            (*options).objects_only = choices.byte() / 128 * choices.byte();
            (*options).time_limit = if choices.byte() > 200 { 1 } else { 0 };
            let on_text: gemmule_on_text = if choices.byte() > 100 { Some(on_text) } else { None };
            let options = if choices.byte() > 250 { null() } else { options.cast_const() };
            gemmule_session_ask(session, choices.text(), options, on_text, (&raw mut left).cast(), &mut answer)
        };
        assert_eq!(status == gemmule_status::GEMMULE_OK, !answer.is_null());
        // SAFETY: it was made here, and nobody else has it.
        unsafe { gemmule_answer_free(keep(&mut self.answers, answer)) };
    }

    /// Reads everything that an answer points to.
    fn read(&mut self, choices: &mut Choices<'_>) {
        let answer = choices.handle(&self.answers);
        let session = choices.handle(&self.sessions);
        // SAFETY: the handles are alive or NULL, and arrays are as long as their functions say.
        unsafe {
            let text = gemmule_answer_text(answer);
            assert!(answer.is_null() == text.is_null());
            if !text.is_null() {
                assert!(CStr::from_ptr(text).to_str().is_ok());
            }
            let (mut tokens, mut probabilities, mut objects) = (null(), null(), null());
            let count = gemmule_answer_tokens(answer, &mut tokens, &mut probabilities);
            if count > 0 {
                std::hint::black_box(std::slice::from_raw_parts(tokens, count).to_vec());
                assert!(
                    std::slice::from_raw_parts(probabilities, count).iter().all(|share| (0.0..=1.001).contains(share))
                );
            }
            let count = gemmule_answer_objects(answer, &mut objects);
            for index in 0..count {
                let object = *objects.add(index);
                assert!(CStr::from_ptr(object.label).to_str().is_ok());
            }
            let segments = gemmule_answer_segments(answer, choices.below(count + 2));
            if !segments.is_null() {
                std::hint::black_box(std::slice::from_raw_parts(segments, 16).to_vec());
            }
            let (mut width, mut height) = (0, 0);
            gemmule_answer_picture_size(answer, &mut width, &mut height);
            let mut mask = vec![0u8; width as usize * height as usize];
            gemmule_session_mask(session, answer, choices.below(count + 2), mask.as_mut_ptr(), mask.len());
            std::hint::black_box((gemmule_answer_finish(answer), gemmule_answer_timings(answer)));
        }
    }

    fn score(&mut self, choices: &mut Choices<'_>) {
        let session = choices.handle(&self.sessions);
        let texts: Vec<*const c_char> = (0..choices.below(4)).map(|_| choices.text()).collect();
        let mut probabilities = vec![0.0; texts.len()];
        // SAFETY: strings end with a zero byte, and there is room for as many numbers.
        unsafe {
            gemmule_session_score(session, choices.text(), texts.as_ptr(), texts.len(), probabilities.as_mut_ptr());
        }
    }

    fn call(&mut self, choices: &mut Choices<'_>) {
        match choices.below(16) {
            0 => self.open(choices),
            1 | 2 => self.session(choices),
            3 | 4 => self.show(choices),
            5 => self.show_files(choices),
            6 => self.features(choices),
            7 | 8 => self.ask(choices),
            9 => self.read(choices),
            10 => self.score(choices),
            // SAFETY: what is freed is taken from the handles before.
            11 => unsafe { gemmule_model_free(choices.take(&mut self.models)) },
            // SAFETY: what is freed is taken from the handles before.
            12 => unsafe { gemmule_session_free(choices.take(&mut self.sessions)) },
            // SAFETY: what is freed is taken from the handles before.
            13 => unsafe { gemmule_answer_free(choices.take(&mut self.answers)) },
            14 => {
                // SAFETY: it was made here, and nobody else has it.
                unsafe { gemmule_cancel_free(keep(&mut self.cancels, gemmule_cancel_new())) };
                // SAFETY: the handle is alive or NULL.
                unsafe { gemmule_cancel_set(choices.handle(&self.cancels), choices.byte() & 1) };
                if choices.byte() > 128 {
                    // SAFETY: what is freed is taken from the handles before.
                    unsafe { gemmule_cancel_free(choices.take(&mut self.cancels)) };
                }
            }
            // SAFETY: both are strings that end with a zero byte.
            _ => unsafe {
                assert!(CStr::from_ptr(gemmule_last_error()).to_str().is_ok());
                assert!(CStr::from_ptr(gemmule_version()).to_str().is_ok());
            },
        }
    }
}

/// Keeps a handle that was made, or gives it back where there are enough.
fn keep<T>(handles: &mut Vec<*mut T>, made: *mut T) -> *mut T {
    if made.is_null() || handles.len() == MOST_HANDLES {
        return made;
    }
    handles.push(made);
    null_mut()
}

impl Drop for Program {
    fn drop(&mut self) {
        // Models before their sessions, as is allowed.
        // SAFETY: each handle is alive, and used here for the last time.
        unsafe {
            self.models.drain(..).for_each(|model| gemmule_model_free(model));
            self.sessions.drain(..).for_each(|session| gemmule_session_free(session));
            self.answers.drain(..).for_each(|answer| gemmule_answer_free(answer));
            self.cancels.drain(..).for_each(|cancel| gemmule_cancel_free(cancel));
        }
    }
}

pub(crate) fn calls(data: &[u8]) {
    let mut choices = Choices(data.iter());
    let mut program = Program::default();
    // What most sequences need.
    program.open(&mut Choices([].iter()));
    for _ in 0..MOST_CALLS {
        if choices.0.len() == 0 {
            break;
        }
        program.call(&mut choices);
    }
}
