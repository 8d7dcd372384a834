/* C interface of Gemmule. Made by cbindgen from capi/src; `cargo test -p gemmule-capi` checks that it is up to date.
 *
 * Functions return GEMMULE_OK or a status, and then gemmule_last_error() says why. Objects are opaque and freed by their own
 * function; freeing NULL does nothing. Strings are UTF-8; those that a function returns live as long as what they are from, and
 * gemmule_last_error()'s until the next failure on the same thread.
 *
 * Threads: a model may be shared by threads, a session belongs to one thread at a time, a gemmule_cancel may be set from any.
 * Fork: a child process must not use sessions that its parent has made, whose threads it does not have; models it may.
 * Exceptions: a callback must return. An exception (C++) or longjmp that leaves it ends the process.
 *
 * Versions: a program that was built with an older header runs with every newer library whose file has the same number
 * (libgemmule.so.0). Functions and values stay, structs of options grow at their end and say their size, other structs never
 * change. A program that was built with a newer header runs, too, as long as it sets nothing that the library does not know, and
 * calls no function that it has not. */

#ifndef GEMMULE_H
#define GEMMULE_H

#include <stddef.h>
#include <stdint.h>
#if defined(__cplusplus) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 199901L)
#ifndef __cplusplus
#include <stdbool.h>
#endif
typedef bool gemmule_bool;
#else
/* C89 has no bool; this is passed alike. */
typedef unsigned char gemmule_bool;
#endif

/**
 * What a function did.
 */
typedef enum {
  /**
   * It succeeded.
   */
  GEMMULE_OK = 0,
  /**
   * It failed: a file, a request or the machine; see gemmule_last_error().
   */
  GEMMULE_FAILED = 1,
  /**
   * An argument is NULL, too large, no UTF-8 or otherwise impossible.
   */
  GEMMULE_INVALID_ARGUMENT = 2,
  /**
   * A mistake within the library; the objects involved should be freed.
   */
  GEMMULE_INTERNAL = 3,
  /**
   * A gemmule_cancel ended it before it had a result.
   */
  GEMMULE_CANCELLED = 4
} gemmule_status;

/**
 * Why an answer ended.
 */
typedef enum {
  /**
   * The model said so.
   */
  GEMMULE_END_TOKEN = 0,
  /**
   * The limit of tokens was reached.
   */
  GEMMULE_MAX_TOKENS = 1,
  /**
   * The callback or a gemmule_cancel said so.
   */
  GEMMULE_STOPPED = 2,
  /**
   * The time was up.
   */
  GEMMULE_DEADLINE = 3
} gemmule_finish;

/**
 * How an image's bytes stand for pixels.
 */
typedef enum {
  /**
   * Red, green, blue.
   */
  GEMMULE_RGB8 = 0,
  /**
   * Blue, green, red: OpenCV's order.
   */
  GEMMULE_BGR8 = 1,
  /**
   * Red, green, blue and an opacity, which is ignored.
   */
  GEMMULE_RGBA8 = 2,
  /**
   * Blue, green, red and an opacity, which is ignored.
   */
  GEMMULE_BGRA8 = 3,
  /**
   * Grey.
   */
  GEMMULE_MONO8 = 4,
  /**
   * YUV of ITU-R BT.601, two pixels in four bytes: Y, U, Y, V.
   */
  GEMMULE_YUYV = 5,
  /**
   * The same as U, Y, V, Y.
   */
  GEMMULE_UYVY = 6,
  /**
   * A plane of Y, then one of U and V by turns at half the size, its rows as far apart.
   */
  GEMMULE_NV12 = 7,
  /**
   * A plane of Y, then one of U and one of V at half the size, their rows half as far apart.
   */
  GEMMULE_I420 = 8,
  /**
   * A plane of Y, then one of U and one of V at half the width.
   */
  GEMMULE_I422 = 9,
  /**
   * Planes of Y, U and V.
   */
  GEMMULE_I444 = 10
} gemmule_pixel_format;

/**
 * The standard whose matrix turns YUV into RGB.
 */
typedef enum {
  /**
   * ITU-R BT.601 up to 576 rows, BT.709 above.
   */
  GEMMULE_MATRIX_OF_HEIGHT = 0,
  /**
   * ITU-R BT.601.
   */
  GEMMULE_BT601 = 1,
  /**
   * ITU-R BT.709.
   */
  GEMMULE_BT709 = 2,
  /**
   * ITU-R BT.2020.
   */
  GEMMULE_BT2020 = 3
} gemmule_matrix;

/**
 * The range of the numbers of YUV and grey.
 */
typedef enum {
  /**
   * Limited for YUV, full for grey.
   */
  GEMMULE_RANGE_OF_FORMAT = 0,
  /**
   * Brightness from 16 to 235, colours from 16 to 240.
   */
  GEMMULE_LIMITED = 1,
  /**
   * All from 0 to 255.
   */
  GEMMULE_FULL = 2
} gemmule_range;

/**
 * An answer.
 */
typedef struct gemmule_answer gemmule_answer;

/**
 * Ends what sessions compute, from any thread; see gemmule_session_options.
 */
typedef struct gemmule_cancel gemmule_cancel;

/**
 * An opened model.
 */
typedef struct gemmule_model gemmule_model;

/**
 * The memory and threads of one generation at a time.
 */
typedef struct gemmule_session gemmule_session;

/**
 * How a session computes.
 */
typedef struct {
  /**
   * Bytes of the struct as the program knows it; gemmule_session_options_init() sets it.
   */
  size_t size;
  /**
   * Threads; 0 means one for each physical core that this process may use.
   */
  uint32_t threads;
  /**
   * Instruction set by name; NULL means the environment's GEMMULE_ISA, else the best.
   */
  const char *isa;
  /**
   * Threads that generate tokens after the first; 0 means as many as threads.
   */
  uint32_t generation_threads;
  /**
   * What ends the session's work from another thread, or NULL; may be freed once the session is made.
   */
  const gemmule_cancel *cancel;
} gemmule_session_options;

/**
 * A picture in memory that belongs to the caller; it is only read, and only during the call that takes it. YUV is of
 * ITU-R BT.601 with limited range; see gemmule_frame for others, and for planes that lie otherwise. This struct never changes.
 */
typedef struct {
  /**
   * The first row.
   */
  const uint8_t *data;
  /**
   * Bytes that may be read from `data` on.
   */
  size_t size;
  /**
   * Pixels of a row.
   */
  uint32_t width;
  /**
   * Rows.
   */
  uint32_t height;
  /**
   * Bytes from the beginning of one row to that of the next; 0 means that rows touch.
   */
  size_t row_step;
  /**
   * One of gemmule_pixel_format.
   */
  uint32_t format;
} gemmule_image;

/**
 * What to generate.
 */
typedef struct {
  /**
   * Bytes of the struct as the program knows it; gemmule_generate_options_init() sets it.
   */
  size_t size;
  /**
   * Most tokens of an answer.
   */
  uint32_t max_tokens;
  /**
   * 0 takes the likeliest token each time; larger values vary the answer.
   */
  float temperature;
  /**
   * With a temperature: choose among so many of the likeliest tokens; 0 means all.
   */
  uint32_t top_k;
  /**
   * With a temperature: choose among the likeliest tokens of this total probability; 1 means all.
   */
  float top_p;
  /**
   * The same seed gives the same answer.
   */
  uint64_t seed;
  /**
   * A regular expression that the answer matches, or NULL.
   */
  const char *pattern;
  /**
   * Whether the answer is a list of whole objects or nothing; not together with a pattern.
   */
  gemmule_bool objects_only;
  /**
   * Stop after so many milliseconds from the call on, with what there is by then; 0 means no limit. The prompt is run in
   * any case.
   */
  uint32_t time_limit;
} gemmule_generate_options;

/**
 * Takes each piece of an answer's text as soon as it is certain: `length` bytes, no zero byte behind them. Returns whether to
 * go on.
 */
typedef gemmule_bool (*gemmule_on_text)(const char *text, size_t length, void *user);

/**
 * An object that an answer names. The struct never changes, since it comes in arrays: functions give more.
 */
typedef struct {
  /**
   * What the model calls it.
   */
  const char *label;
  /**
   * Left, upper, right and lower edge as shares of the picture's sides.
   */
  float normalized_box[4];
  /**
   * The same in pixels; all zero unless one picture was shown.
   */
  float pixel_box[4];
  /**
   * Geometric mean of the probabilities of the tokens that made it.
   */
  float score;
} gemmule_object;

/**
 * How long the stages took, in milliseconds.
 */
typedef struct {
  /**
   * Resizing and normalizing the pictures.
   */
  double image;
  /**
   * The vision tower and the projector.
   */
  double vision;
  /**
   * The decoder over the prompt, to the first token.
   */
  double prefill;
  /**
   * All tokens after the first.
   */
  double generate;
  /**
   * Tokens of the prompt, pictures included.
   */
  size_t prompt_tokens;
} gemmule_timings;

/**
 * A picture in memory that belongs to the caller; it is only read, and only during the call that takes it.
 */
typedef struct {
  /**
   * Bytes of the struct as the program knows it; gemmule_frame_init() sets it, and zero everywhere else.
   */
  size_t size;
  /**
   * The first row.
   */
  const uint8_t *data;
  /**
   * Bytes that may be read from `data` on.
   */
  size_t bytes;
  /**
   * Pixels of a row.
   */
  uint32_t width;
  /**
   * Rows.
   */
  uint32_t height;
  /**
   * Bytes from the beginning of one row to that of the next, of the first plane where there are several; 0 means that rows touch.
   */
  size_t row_step;
  /**
   * The same of the planes of colours, which follow each other; 0 means in proportion to `row_step`, as Linux's cameras have it, or that
   * rows touch where it is 0, too.
   */
  size_t chroma_step;
  /**
   * Rows of the first plane, which may be more than the picture's; 0 means as many.
   */
  uint32_t luma_rows;
  /**
   * One of gemmule_pixel_format.
   */
  uint32_t format;
  /**
   * One of gemmule_matrix.
   */
  uint32_t matrix;
  /**
   * One of gemmule_range.
   */
  uint32_t range;
} gemmule_frame;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Makes a gemmule_cancel, not set.
 */
gemmule_cancel *gemmule_cancel_new(void);

/**
 * Sets it, so that its sessions end what they compute and fail with GEMMULE_CANCELLED from then on (an answer that has begun
 * ends with what there is), or takes that back.
 *
 * The caller promises:
 * `cancel` is NULL or came from gemmule_cancel_new().
 */
void gemmule_cancel_set(const gemmule_cancel *cancel,
                        gemmule_bool cancelled);

/**
 * Frees it. Sessions that it was given to go on.
 *
 * The caller promises:
 * `cancel` is NULL or came from gemmule_cancel_new() and is not used any more.
 */
void gemmule_cancel_free(gemmule_cancel *cancel);

/**
 * The library's version, such as "0.1.0".
 */
const char *gemmule_version(void);

/**
 * Why the last function that failed on this thread did so; valid until the next one fails. Never NULL.
 */
const char *gemmule_last_error(void);

/**
 * Opens a GGUF file, or the pair of a text half and a vision half. `mmproj` is NULL for a single file; both are NULL for the
 * bundled model.
 *
 * The caller promises:
 * Strings end with a zero byte; `model` points to a place for the result.
 */
gemmule_status gemmule_model_open(const char *path,
                                  const char *mmproj,
                                  gemmule_model **model);

/**
 * Frees a model. Sessions on it go on.
 *
 * The caller promises:
 * `model` is NULL or came from gemmule_model_open() and is not used any more.
 */
void gemmule_model_free(gemmule_model *model);

/**
 * Makes a session on a model. `options` may be NULL.
 *
 * The caller promises:
 * `model` came from gemmule_model_open(); `options` is NULL or as gemmule_session_options_init() made it; `session` points to
 * a place for the result.
 */
gemmule_status gemmule_session_new(const gemmule_model *model,
                                   const gemmule_session_options *options,
                                   gemmule_session **session);

/**
 * Frees a session.
 *
 * The caller promises:
 * `session` is NULL or came from gemmule_session_new() and is not used any more.
 */
void gemmule_session_free(gemmule_session *session);

/**
 * Encodes the pictures that prompts are about from now on, which costs the same for one prompt and for many.
 *
 * The caller promises:
 * `session` came from gemmule_session_new(); `images` points to `count` images, whose data can be read.
 */
gemmule_status gemmule_session_show(gemmule_session *session, const gemmule_image *images, size_t count);

/**
 * As gemmule_session_show(), from picture files (JPEG, PNG, WebP, GIF, BMP, TIFF).
 *
 * The caller promises:
 * `session` came from gemmule_session_new(); `paths` points to `count` strings that end with a zero byte.
 */
gemmule_status gemmule_session_show_files(gemmule_session *session, const char *const *paths, size_t count);

/**
 * As gemmule_session_show(), from features such as gemmule_session_features() gives: `count` numbers, a whole number of
 * images.
 *
 * The caller promises:
 * `session` came from gemmule_session_new(); `features` points to `count` numbers.
 */
gemmule_status gemmule_session_show_features(gemmule_session *session, const float *features, size_t count);

/**
 * The features of the pictures shown, `[images][tokens][hidden]`; they are the session's own and valid until its next show.
 * Any of the results may be NULL.
 *
 * The caller promises:
 * `session` came from gemmule_session_new(); the results are NULL or places for them.
 */
gemmule_status gemmule_session_features(const gemmule_session *session,
                                        const float **features,
                                        size_t *images,
                                        size_t *tokens,
                                        size_t *hidden);

/**
 * Answers a prompt about the pictures shown last. `options`, `on_text` and `user` may be NULL.
 *
 * The caller promises:
 * `session` came from gemmule_session_new(); `prompt` ends with a zero byte; `options` is NULL or as
 * gemmule_generate_options_init() made it, its strings ending with a zero byte; `on_text` does not use the session;
 * `answer` points to a place for the result.
 */
gemmule_status gemmule_session_ask(gemmule_session *session,
                                   const char *prompt,
                                   const gemmule_generate_options *options,
                                   gemmule_on_text on_text,
                                   void *user,
                                   gemmule_answer **answer);

/**
 * The mask of an object that an answer names, in the picture it was shown alone: for each pixel, row after row, a byte that is 1
 * where it belongs to the object and 0 elsewhere. `object` counts from 0; `size` is width times height, see
 * gemmule_answer_picture_size(). The model has to hold a mask decoder. A gemmule_cancel does not end this.
 *
 * The caller promises:
 * `session` came from gemmule_session_new(), `answer` from gemmule_session_ask() with a session of the same model; `size` bytes can be
 * written to `pixels`.
 */
gemmule_status gemmule_session_mask(gemmule_session *session,
                                    const gemmule_answer *answer,
                                    size_t object,
                                    uint8_t *pixels,
                                    size_t size);

/**
 * The probabilities of `count` given answers among each other, to a prompt about the pictures shown last.
 *
 * The caller promises:
 * `session` came from gemmule_session_new(); `prompt` and the `count` choices end with a zero byte; `probabilities` has room
 * for `count` numbers.
 */
gemmule_status gemmule_session_score(gemmule_session *session,
                                     const char *prompt,
                                     const char *const *choices,
                                     size_t count,
                                     float *probabilities);

/**
 * The text; a zero byte in it shows as a space. NULL for NULL.
 *
 * The caller promises:
 * `answer` is NULL or came from gemmule_session_ask().
 */
const char *gemmule_answer_text(const gemmule_answer *answer);

/**
 * The tokens, the end token included when it came, and their probabilities; both are as long as the result says.
 * `tokens` and `probabilities` may be NULL.
 *
 * The caller promises:
 * `answer` is NULL or came from gemmule_session_ask(); the results are NULL or places for them.
 */
size_t gemmule_answer_tokens(const gemmule_answer *answer, const uint32_t **tokens, const float **probabilities);

/**
 * The objects that the answer names, as many as the result says.
 *
 * The caller promises:
 * `answer` is NULL or came from gemmule_session_ask(); `objects` is NULL or a place for the result.
 */
size_t gemmule_answer_objects(const gemmule_answer *answer, const gemmule_object **objects);

/**
 * The sixteen codes of the mask of an object, which counts from 0, for gemmule_session_mask(); NULL where it has none, or there is no such
 * object.
 *
 * The caller promises:
 * `answer` is NULL or came from gemmule_session_ask().
 */
const uint16_t *gemmule_answer_segments(const gemmule_answer *answer,
                                        size_t object);

/**
 * Width and height of the picture that the answer is about, in pixels; both are zero unless one was shown. Either may be NULL.
 *
 * The caller promises:
 * `answer` is NULL or came from gemmule_session_ask(); `width` and `height` are NULL or places for the results.
 */
void gemmule_answer_picture_size(const gemmule_answer *answer,
                                 uint32_t *width,
                                 uint32_t *height);

/**
 * Why the answer ended.
 *
 * The caller promises:
 * `answer` is NULL or came from gemmule_session_ask().
 */
gemmule_finish gemmule_answer_finish(const gemmule_answer *answer);

/**
 * How long the stages took.
 *
 * The caller promises:
 * `answer` is NULL or came from gemmule_session_ask().
 */
gemmule_timings gemmule_answer_timings(const gemmule_answer *answer);

/**
 * Frees an answer.
 *
 * The caller promises:
 * `answer` is NULL or came from gemmule_session_ask() and is not used any more.
 */
void gemmule_answer_free(gemmule_answer *answer);

/**
 * Clears a struct of `size` bytes but for its size. The macro gemmule_frame_init() calls it.
 *
 * The caller promises:
 * `frame` is NULL or `size` bytes can be written to it.
 */
void gemmule_frame_init_sized(gemmule_frame *frame, size_t size);

/**
 * As gemmule_session_show(), from frames. All have the size that the first one says.
 *
 * The caller promises:
 * `session` came from gemmule_session_new(); `frames` points to `count` frames as gemmule_frame_init() made them, whose data can be read.
 */
gemmule_status gemmule_session_show_frames(gemmule_session *session,
                                           const gemmule_frame *frames,
                                           size_t count);

/**
 * Sets the defaults in a struct of the first header's size, for programs that were built with it. The macro of this name calls
 * gemmule_session_options_init_sized().
 *
 * The caller promises:
 * `options` is NULL or can be written to.
 */
void gemmule_session_options_init(gemmule_session_options *options);

/**
 * Sets the defaults in a struct of `size` bytes. What this library does not know of a larger one becomes zero.
 *
 * The caller promises:
 * `options` is NULL or `size` bytes can be written to it.
 */
void gemmule_session_options_init_sized(gemmule_session_options *options, size_t size);

/**
 * Sets the defaults, greedy and up to 256 tokens, in a struct of the first header's size, for programs that were built with it. The
 * macro of this name calls gemmule_generate_options_init_sized().
 *
 * The caller promises:
 * `options` is NULL or can be written to.
 */
void gemmule_generate_options_init(gemmule_generate_options *options);

/**
 * Sets the defaults, greedy and up to 256 tokens, in a struct of `size` bytes. What this library does not know of a larger one becomes
 * zero.
 *
 * The caller promises:
 * `options` is NULL or `size` bytes can be written to it.
 */
void gemmule_generate_options_init_sized(gemmule_generate_options *options,
                                         size_t size);

#ifdef __cplusplus
}
#endif


/* Structs of this header's sizes. */
#define gemmule_session_options_init(options) gemmule_session_options_init_sized((options), sizeof(gemmule_session_options))
#define gemmule_frame_init(frame) gemmule_frame_init_sized((frame), sizeof(gemmule_frame))
#define gemmule_generate_options_init(options) gemmule_generate_options_init_sized((options), sizeof(gemmule_generate_options))

#endif  /* GEMMULE_H */
