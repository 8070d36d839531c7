// What the generated test benches share: one start's stimulus comes from files, and every word that
// the kernel writes is compared with a file (record.cpp made them). The same sources run under
// g++, in C simulation and in co-simulation; there is nothing random, and main returns 0 only if
// every word was right, none was missing and none was left.
#ifndef LDA_BENCH_HPP
#define LDA_BENCH_HPP

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "hls_stream.h"

#include "port.hpp"
#include "types.hpp"

namespace bench {

class Bench {
  public:
    Bench(const char* kernel, int argc, char** argv)
        : kernel_(kernel), folder_(argc > 1 ? argv[1] : ".") {
        if (argc != 2) fail("one argument is needed: the folder of the vectors");
    }

    // Elements of a port's file, or none.
    template <class T>
    std::vector<T> load(const char* port) {
        std::vector<T> values;
        const std::string path = folder_ + "/" + port + ".bin";
        std::FILE* file = std::fopen(path.c_str(), "rb");
        if (!file) {
            fail("cannot open " + path);
            return values;
        }
        T value;
        std::size_t bytes;
        while ((bytes = std::fread(&value, 1, sizeof value, file)) == sizeof value)
            values.push_back(value);
        if (bytes) fail(path + " ends within an element");
        std::fclose(file);
        return values;
    }

    // A buffer of exactly as many words as the port's depth says.
    std::vector<lda::PortWord> buffer(const char* port, std::size_t depth) {
        std::vector<lda::PortWord> words;
        for (const lda::Word& word : load<lda::Word>(port))
            words.push_back(lda::port_word(word));
        if (words.size() != depth) {
            fail(std::string(port) + " has " + std::to_string(words.size()) + " words, not " +
                 std::to_string(depth));
            words.resize(depth);
        }
        return words;
    }

    template <class T>
    T scalar(const char* port) {
        const std::vector<T> values = load<T>(port);
        if (values.size() == 1) return values[0];
        fail(std::string(port) + " has " + std::to_string(values.size()) + " values, not 1");
        return T();
    }

    template <class T>
    void feed(hls::stream<T>& stream, const char* port) {
        for (const T& value : load<T>(port))
            stream.write(value);
    }

    template <class T>
    void expect(hls::stream<T>& stream, const char* port) {
        const std::vector<T> expected = load<T>(port);
        std::size_t wrong = 0, first = 0;
        for (std::size_t i = 0; i < expected.size(); ++i) {
            if (stream.empty()) {
                fail(std::string(port) + " ends after " + std::to_string(i) + " of " +
                     std::to_string(expected.size()) + " elements");
                return;
            }
            const T value = stream.read();
            if (std::memcmp(&value, &expected[i], sizeof value) != 0 && wrong++ == 0) first = i;
        }
        differing(port, wrong, first, expected.size());
        drained(stream, port);
    }

    void expect(const std::vector<lda::PortWord>& words, const char* port) {
        const std::vector<lda::PortWord> expected = buffer(port, words.size());
        std::size_t wrong = 0, first = 0;
        for (std::size_t i = 0; i < words.size(); ++i) {
            const lda::Word value = lda::word_of(words[i]), wanted = lda::word_of(expected[i]);
            if (std::memcmp(&value, &wanted, sizeof value) != 0 && wrong++ == 0) first = i;
        }
        differing(port, wrong, first, words.size());
    }

    // What stays in a stream would stop the card in the next start.
    template <class T>
    void drained(hls::stream<T>& stream, const char* port) {
        std::size_t left = 0;
        while (!stream.empty()) {
            stream.read();
            ++left;
        }
        if (left) fail(std::string(port) + " has " + std::to_string(left) + " elements left");
    }

    bool fine() const { return faults_ == 0; }

    int result() const {
        std::printf("%s: %s\n", kernel_.c_str(), faults_ ? "FAIL" : "PASS");
        return faults_ ? 1 : 0;
    }

  private:
    void differing(const char* port, std::size_t wrong, std::size_t first, std::size_t count) {
        if (wrong == 0) return;
        fail(std::string(port) + ": " + std::to_string(wrong) + " of " + std::to_string(count) +
             " elements differ, the first is " + std::to_string(first));
    }

    void fail(const std::string& text) {
        std::printf("ERROR: %s: %s\n", kernel_.c_str(), text.c_str());
        ++faults_;
    }

    std::string kernel_, folder_;
    int faults_ = 0;
};

}  // namespace bench

#endif
