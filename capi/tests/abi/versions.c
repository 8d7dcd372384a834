/* Structs of older and newer headers, as their programs would give them. */
#include "gemmule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what) do { if (!(what)) { fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #what, gemmule_last_error()); exit(1); } } while (0)

/* A later version's options, and one that only has grown. */
struct newer { gemmule_session_options known; unsigned long later[3]; };

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
  gemmule_session_options_init(NULL);
  gemmule_generate_options_init(NULL);
  gemmule_model_free(model);
  return 0;
}
