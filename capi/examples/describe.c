/* Asks about a picture file and about the same picture as pixels in memory; `describe [MODEL.gguf] PICTURE`. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gemmule.h"

static bool print_piece(const char *text, size_t length, void *user) {
    fwrite(text, 1, length, stdout);
    ++*(int *)user;
    return true;
}

static bool stop_at_once(const char *text, size_t length, void *user) {
    (void)text, (void)length, (void)user;
    return false;
}

static void check(gemmule_status status) {
    if (status != GEMMULE_OK) {
        fprintf(stderr, "%s\n", gemmule_last_error());
        exit(1);
    }
}

static void expect(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "%s does not hold; last error: %s\n", what, gemmule_last_error());
        exit(1);
    }
}

int main(int argc, char **argv) {
    const char *model_path = argc > 2 ? argv[1] : NULL, *picture = argv[argc - 1];
    gemmule_model *model;
    gemmule_session *session;
    gemmule_session_options options;
    check(gemmule_model_open(model_path, NULL, &model));
    gemmule_session_options_init(&options);
    options.threads = 2;
    check(gemmule_session_new(model, &options, &session));
    gemmule_model_free(model); /* the session goes on */

    check(gemmule_session_show_files(session, &picture, 1));
    gemmule_answer *answer;
    int pieces = 0;
    check(gemmule_session_ask(session, "describe en", NULL, print_piece, &pieces, &answer));
    printf("\n");
    expect(pieces > 0 && gemmule_answer_finish(answer) == GEMMULE_END_TOKEN, "an answer in pieces");
    gemmule_timings timings = gemmule_answer_timings(answer);
    expect(timings.prompt_tokens > 25 && timings.vision > 0, "timings");
    char *described = strdup(gemmule_answer_text(answer));
    gemmule_answer_free(answer);

    check(gemmule_session_ask(session, "detect circle", NULL, NULL, NULL, &answer));
    const gemmule_object *objects;
    size_t count = gemmule_answer_objects(answer, &objects);
    for (size_t i = 0; i < count; i++) {
        const float *box = objects[i].pixel_box;
        printf("%s %.2f: %.0f %.0f %.0f %.0f\n", objects[i].label, objects[i].score, box[0], box[1], box[2], box[3]);
    }
    expect(count == 1 && strcmp(objects[0].label, "circle") == 0, "one circle");
    uint32_t width, height;
    uint8_t pixel;
    gemmule_answer_picture_size(answer, &width, &height);
    expect(width > 0 && height > 0 && gemmule_answer_segments(answer, 0) == NULL, "a picture's size, no mask");
    expect(gemmule_session_mask(session, answer, 0, &pixel, 1) == GEMMULE_INVALID_ARGUMENT && strstr(gemmule_last_error(), "no mask"), "no mask");
    expect(gemmule_session_mask(session, answer, 1, &pixel, 1) == GEMMULE_INVALID_ARGUMENT, "no object");
    gemmule_answer_free(answer);

    const char *choices[] = {"yellow", "red"};
    float probabilities[2];
    check(gemmule_session_score(session, "answer en what color is the shape?", choices, 2, probabilities));
    expect(probabilities[0] > 0.9f && probabilities[0] + probabilities[1] > 0.999f, "yellow");

    /* Features out, and in again in another session's place. */
    const float *features;
    size_t images, tokens, hidden;
    check(gemmule_session_features(session, &features, &images, &tokens, &hidden));
    size_t length = images * tokens * hidden;
    float *copy = malloc(length * sizeof(float));
    memcpy(copy, features, length * sizeof(float));
    check(gemmule_session_show_features(session, copy, length));
    gemmule_generate_options generate;
    gemmule_generate_options_init(&generate);
    generate.pattern = "a (red|green) .+";
    check(gemmule_session_ask(session, "describe en", &generate, NULL, NULL, &answer));
    expect(strncmp(gemmule_answer_text(answer), "a red", 5) == 0 || strncmp(gemmule_answer_text(answer), "a green", 7) == 0, "pattern");
    gemmule_answer_free(answer);
    gemmule_generate_options_init(&generate);
    check(gemmule_session_ask(session, "describe en", &generate, stop_at_once, NULL, &answer));
    expect(gemmule_answer_finish(answer) == GEMMULE_STOPPED, "a stop");
    gemmule_answer_free(answer);
    check(gemmule_session_ask(session, "describe en", NULL, NULL, NULL, &answer));
    expect(strcmp(gemmule_answer_text(answer), described) == 0, "the same features, the same answer");
    gemmule_answer_free(answer);
    free(copy);
    free(described);

    /* A frame with its rows apart, in OpenCV's order. */
    enum { SIDE = 64, STEP = SIDE * 3 + 16 };
    static uint8_t frame[SIDE * STEP];
    memset(frame, 255, sizeof frame);
    for (int y = 20; y < 44; y++)
        for (int x = 20; x < 44; x++) memcpy(frame + y * STEP + x * 3, "\xff\x00\x00", 3);
    gemmule_image image = {frame, sizeof frame, SIDE, SIDE, STEP, GEMMULE_BGR8};
    check(gemmule_session_show(session, &image, 1));
    check(gemmule_session_ask(session, "answer en what color is the shape?", NULL, NULL, NULL, &answer));
    printf("%s\n", gemmule_answer_text(answer));
    expect(strcmp(gemmule_answer_text(answer), "blue") == 0, "blue");
    gemmule_answer_free(answer);

    /* Misuse is an error, not a crash. */
    image.size = 100;
    expect(gemmule_session_show(session, &image, 1) == GEMMULE_FAILED && strstr(gemmule_last_error(), "100 bytes"), "short data");
    image.size = sizeof frame, image.format = 77;
    expect(gemmule_session_show(session, &image, 1) == GEMMULE_INVALID_ARGUMENT, "unknown format");
    expect(gemmule_session_show(NULL, &image, 1) == GEMMULE_INVALID_ARGUMENT, "NULL session");
    expect(gemmule_session_show(session, NULL, 1) == GEMMULE_INVALID_ARGUMENT, "NULL images");
    expect(gemmule_session_ask(session, NULL, NULL, NULL, NULL, &answer) == GEMMULE_INVALID_ARGUMENT && !answer, "NULL prompt");
    expect(gemmule_session_ask(session, "\xff\xfe", NULL, NULL, NULL, &answer) == GEMMULE_INVALID_ARGUMENT, "no UTF-8");
    expect(gemmule_session_ask(session, "x", NULL, NULL, NULL, NULL) == GEMMULE_INVALID_ARGUMENT, "no place");
    generate.size = 3;
    expect(gemmule_session_ask(session, "x", &generate, NULL, NULL, &answer) == GEMMULE_INVALID_ARGUMENT, "options' size");
    expect(gemmule_model_open("/nowhere.gguf", NULL, &model) == GEMMULE_FAILED && !model, "no file");
    expect(strstr(gemmule_last_error(), "/nowhere.gguf") != NULL, "the file's name");
    expect(gemmule_session_new(NULL, NULL, NULL) == GEMMULE_INVALID_ARGUMENT, "NULL model");
    expect(gemmule_answer_text(NULL) == NULL && gemmule_answer_objects(NULL, NULL) == 0, "NULL answer");
    gemmule_answer_free(NULL);
    gemmule_model_free(NULL);
    gemmule_session_free(NULL);
    gemmule_session_free(session);
    printf("gemmule %s\n", gemmule_version());
    return 0;
}
