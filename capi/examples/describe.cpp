// The same in C++, where handles free themselves; `describe_cpp PICTURE`.
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "gemmule.h"

namespace {
void check(gemmule_status status) {
    if (status != GEMMULE_OK) throw std::runtime_error(gemmule_last_error());
}

template <auto Free>
struct Freed {
    template <typename T>
    void operator()(T *handle) const { Free(handle); }
};
using Model = std::unique_ptr<gemmule_model, Freed<gemmule_model_free>>;
using Session = std::unique_ptr<gemmule_session, Freed<gemmule_session_free>>;
using Answer = std::unique_ptr<gemmule_answer, Freed<gemmule_answer_free>>;

std::string describe(const gemmule_model *model, const char *picture) {
    gemmule_session *made = nullptr;
    check(gemmule_session_new(model, nullptr, &made));
    Session session(made);
    check(gemmule_session_show_files(session.get(), &picture, 1));
    gemmule_answer *answered = nullptr;
    check(gemmule_session_ask(session.get(), "describe en", nullptr, nullptr, nullptr, &answered));
    return gemmule_answer_text(Answer(answered).get());
}
}  // namespace

int main(int, char **argv) {
    gemmule_model *opened = nullptr;
    check(gemmule_model_open(nullptr, nullptr, &opened));
    Model model(opened);
    // Several sessions on one model, each in its own thread.
    std::vector<std::string> answers(3);
    std::vector<std::thread> threads;
    for (auto &answer : answers) threads.emplace_back([&] { answer = describe(model.get(), argv[1]); });
    for (auto &thread : threads) thread.join();
    for (const auto &answer : answers) std::printf("%s\n", answer.c_str());
    try {
        describe(model.get(), "/nowhere.png");
        return 1;
    } catch (const std::runtime_error &error) {
        std::printf("%s\n", error.what());
    }
    return answers[0] == answers[1] && answers[1] == answers[2] ? 0 : 1;
}
