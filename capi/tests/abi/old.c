/* A program of the header at 6a664fb: what it was built to call works with every later library, and nothing is written beyond its
 * structs. */
#include "gemmule-6a664fb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what) do { if (!(what)) { fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #what, gemmule_last_error()); exit(1); } } while (0)

/* What lies behind a struct on the stack. */
struct session_place { gemmule_session_options options; unsigned char behind[64]; };
struct generate_place { gemmule_generate_options options; unsigned char behind[64]; };

static bool intact(const unsigned char *bytes, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (bytes[i] != 0xA5) return false;
  return true;
}

static bool count_pieces(const char *text, size_t length, void *user) {
  (void)text;
  *(size_t *)user += length;
  return true;
}

int main(int argc, char **argv) {
  struct session_place session_place;
  struct generate_place generate_place;
  memset(&session_place, 0xA5, sizeof session_place);
  memset(&generate_place, 0xA5, sizeof generate_place);
  gemmule_session_options_init(&session_place.options);
  gemmule_generate_options_init(&generate_place.options);
  CHECK(intact(session_place.behind, sizeof session_place.behind));
  CHECK(intact(generate_place.behind, sizeof generate_place.behind));
  CHECK(session_place.options.size == sizeof(gemmule_session_options));
  CHECK(generate_place.options.size == sizeof(gemmule_generate_options));

  gemmule_model *model;
  gemmule_session *session;
  CHECK(argc == 2 && gemmule_model_open(NULL, NULL, &model) == GEMMULE_OK);
  session_place.options.threads = 1;
  CHECK(gemmule_session_new(model, &session_place.options, &session) == GEMMULE_OK);
  const char *paths[] = {argv[1]};
  CHECK(gemmule_session_show_files(session, paths, 1) == GEMMULE_OK);

  size_t length = 0;
  gemmule_answer *answer;
  generate_place.options.max_tokens = 100;
  CHECK(gemmule_session_ask(session, "describe en", &generate_place.options, count_pieces, &length, &answer) == GEMMULE_OK);
  CHECK(strcmp(gemmule_answer_text(answer), "a yellow circle at the top") == 0 && length == strlen(gemmule_answer_text(answer)));
  CHECK(gemmule_answer_finish(answer) == GEMMULE_END_TOKEN && gemmule_answer_timings(answer).prompt_tokens > 0);
  gemmule_answer_free(answer);

  /* Several objects lie as far apart as this header says. */
  generate_place.options.pattern =
      "<loc0100><loc0200><loc0300><loc0400> circle ; <loc0101><loc0201><loc0301><loc0401> square ; <loc0102><loc0202><loc0302><loc0402> dot";
  CHECK(gemmule_session_ask(session, "detect circle", &generate_place.options, NULL, NULL, &answer) == GEMMULE_OK);
  const gemmule_object *objects;
  size_t count = gemmule_answer_objects(answer, &objects);
  CHECK(count == 3);
  const char *labels[] = {"circle", "square", "dot"};
  for (size_t i = 0; i < count; i++) {
    CHECK(strcmp(objects[i].label, labels[i]) == 0);
    CHECK(objects[i].score > 0 && objects[i].score <= 1);
    CHECK(objects[i].normalized_box[0] > 0.19 && objects[i].normalized_box[0] < 0.2);
    CHECK(objects[i].pixel_box[2] > objects[i].pixel_box[0]);
  }
  gemmule_answer_free(answer);

  unsigned char frame[64 * 64 * 3];
  memset(frame, 255, sizeof frame);
  gemmule_image images[2] = {{frame, sizeof frame, 64, 64, 0, GEMMULE_RGB8}, {frame, sizeof frame, 64, 64, 64 * 3, GEMMULE_BGR8}};
  CHECK(gemmule_session_show(session, images, 2) == GEMMULE_OK);
  const float *features;
  size_t shape[3];
  CHECK(gemmule_session_features(session, &features, &shape[0], &shape[1], &shape[2]) == GEMMULE_OK && shape[0] == 2);
  CHECK(gemmule_session_show_features(session, features, shape[1] * shape[2]) == GEMMULE_OK);
  const char *choices[] = {"red", "yellow"};
  float probabilities[2];
  CHECK(gemmule_session_score(session, "answer en what color is the shape?", choices, 2, probabilities) == GEMMULE_OK);
  gemmule_session_free(session);
  gemmule_model_free(model);
  printf("a program of 6a664fb with gemmule %s: fine\n", gemmule_version());
  return 0;
}
