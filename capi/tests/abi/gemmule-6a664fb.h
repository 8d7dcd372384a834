/* C interface of Gemmule. Made by cbindgen from capi/src; `cargo test -p gemmule-capi` checks that it is up to date.
 *
 * Functions return GEMMULE_OK or a status, and then gemmule_last_error() says why. Objects are opaque and freed by their own
 * function; freeing NULL does nothing. A model may be shared by threads, a session belongs to one thread at a time. Strings
 * are UTF-8. */

#ifndef GEMMULE_H
#define GEMMULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
   * The callback said so.
   */
  GEMMULE_STOPPED = 2,
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
} gemmule_pixel_format;

/**
 * An answer.
 */
typedef struct gemmule_answer gemmule_answer;

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
   * sizeof(gemmule_session_options); gemmule_session_options_init() sets it.
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
} gemmule_session_options;

/**
 * A picture in memory that belongs to the caller; it is only read, and only during the call that takes it.
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
   * sizeof(gemmule_generate_options); gemmule_generate_options_init() sets it.
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
  bool objects_only;
} gemmule_generate_options;

/**
 * Takes each piece of an answer's text as soon as it is certain: `length` bytes, no zero byte behind them. Returns whether to
 * go on.
 */
typedef bool (*gemmule_on_text)(const char *text, size_t length, void *user);

/**
 * An object that an answer names.
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

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

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
 * As gemmule_session_show(), from picture files (JPEG, PNG, WebP, GIF, BMP).
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
 * The features of the pictures shown, [images][tokens][hidden]; they are the session's own and valid until its next show.
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
 * Sets the defaults.
 *
 * The caller promises:
 * `options` is NULL or can be written to.
 */
void gemmule_session_options_init(gemmule_session_options *options);

/**
 * Sets the defaults: greedy, up to 256 tokens.
 *
 * The caller promises:
 * `options` is NULL or can be written to.
 */
void gemmule_generate_options_init(gemmule_generate_options *options);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* GEMMULE_H */
