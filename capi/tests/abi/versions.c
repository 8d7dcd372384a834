/* Structs of older and newer headers, as their programs would give them. */
#include "gemmule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what) do { if (!(what)) { fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #what, gemmule_last_error()); exit(1); } } while (0)

/* A later version's options, and one that only has grown. */
struct newer { gemmule_session_options known; unsigned long later[3]; };

/* A frame with its planes apart, alone and beside another, and what cannot be. */
static void frames(const gemmule_model *model) {
  static unsigned char data[64 * 70 + 2 * 40 * 32];
  gemmule_frame pair[2];
  gemmule_session *session;
  size_t images, i;
  CHECK(gemmule_session_new(model, NULL, &session) == GEMMULE_OK);
  memset(data, 128, sizeof data);
  for (i = 0; i < 2; i++) {
    gemmule_frame_init(&pair[i]);
    pair[i].data = data;
    pair[i].bytes = sizeof data;
    pair[i].width = 64;
    pair[i].height = 64;
    pair[i].row_step = 68;
    pair[i].chroma_step = 40;
    pair[i].format = GEMMULE_I420;
    pair[i].matrix = GEMMULE_BT709;
    pair[i].range = GEMMULE_FULL;
  }
  CHECK(gemmule_session_show_frames(session, pair, 2) == GEMMULE_OK);
  CHECK(gemmule_session_features(session, NULL, &images, NULL, NULL) == GEMMULE_OK && images == 2);
  pair[1].luma_rows = 70;
  CHECK(gemmule_session_show_frames(session, pair, 2) == GEMMULE_FAILED && strstr(gemmule_last_error(), "do not fit"));
  pair[1].luma_rows = 0;
  pair[1].matrix = 9;
  CHECK(gemmule_session_show_frames(session, pair, 2) == GEMMULE_INVALID_ARGUMENT);
  pair[0].size = 8;
  CHECK(gemmule_session_show_frames(session, pair, 1) == GEMMULE_INVALID_ARGUMENT);
  CHECK(gemmule_session_show_frames(session, NULL, 1) == GEMMULE_INVALID_ARGUMENT);
  CHECK(gemmule_session_show_frames(session, NULL, 0) == GEMMULE_OK);
  gemmule_session_free(session);
}

int main(void) {
  struct newer newer;
  gemmule_session_options *options = &newer.known;
  gemmule_model *model;
  gemmule_session *session;
  gemmule_session_options small;
  size_t sizes[] = {0, 1, 8, 23, 1 << 20, (size_t)-1};
  size_t i;

  CHECK(gemmule_model_open(NULL, NULL, &model) == GEMMULE_OK);
  memset(&newer, 0xA5, sizeof newer);
  gemmule_session_options_init_sized(options, sizeof newer);
  CHECK(options->size == sizeof newer && newer.later[0] == 0 && newer.later[2] == 0);
  CHECK(gemmule_session_new(model, options, &session) == GEMMULE_OK);
  gemmule_session_free(session);
  newer.later[1] = 1;
  CHECK(gemmule_session_new(model, options, &session) == GEMMULE_INVALID_ARGUMENT && session == NULL);
  CHECK(strstr(gemmule_last_error(), "newer version"));
  /* Without the last field. */
  memset(&small, 0xA5, sizeof small);
  gemmule_session_options_init_sized(&small, offsetof(gemmule_session_options, cancel));
  CHECK(((unsigned char *)&small)[sizeof small - 1] == 0xA5);
  CHECK(gemmule_session_new(model, &small, &session) == GEMMULE_OK);
  gemmule_session_free(session);
  for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    gemmule_session_options_init(&small);
    small.size = sizes[i];
    CHECK(gemmule_session_new(model, &small, &session) == GEMMULE_INVALID_ARGUMENT);
  }
  frames(model);
  gemmule_session_options_init(NULL);
  gemmule_generate_options_init(NULL);
  gemmule_model_free(model);
  return 0;
}
