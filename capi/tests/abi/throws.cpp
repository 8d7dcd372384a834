// An exception that leaves a callback: the process ends, and nothing goes on with half of a session.
#include "gemmule.h"

#include <cstdio>
#include <stdexcept>

static bool throws(const char *, size_t, void *) { throw std::runtime_error("from the callback"); }

int main() {
  gemmule_model *model;
  gemmule_session *session;
  gemmule_answer *answer;
  if (gemmule_model_open(NULL, NULL, &model) || gemmule_session_new(model, NULL, &session)) return 2;
  try {
    gemmule_session_ask(session, "caption en", NULL, throws, NULL, &answer);
  } catch (...) {
    std::puts("it came through");
    return 3;
  }
  std::puts("it was lost");
  return 4;
}
