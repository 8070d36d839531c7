// The software card of a build, and files of what passes through its streams: the stimulus and the
// expected results of the kernels' test benches (bench.hpp).
//
// C ABI: that of card.so (hls/card/card.hpp), and
//   int lda_record_to(fifo, path)   from now on append every element written to the FIFO of that
//                                   name to a file, which may be several; 0, or 1 (not opened)
//   int lda_record_end()            close all files; 0, or 1 (some element was not written)
#include <cstddef>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "fifo.hpp"

namespace {

class Recorder {
  public:
    ~Recorder() { end(); }

    bool open(const std::string& fifo, const char* path) {
        std::FILE* file = std::fopen(path, "wb");
        if (file) files_[fifo].push_back(file);
        return file != nullptr;
    }

    void written(const std::string& fifo, const void* element, std::size_t bytes) {
        const auto found = files_.find(fifo);
        if (found == files_.end()) return;
        for (std::FILE* file : found->second)
            complete_ &= std::fwrite(element, 1, bytes, file) == bytes;
    }

    bool end() {
        for (const auto& each : files_) {
            for (std::FILE* file : each.second)
                complete_ &= std::fclose(file) == 0;
        }
        files_.clear();
        const bool complete = complete_;
        complete_ = true;
        return complete;
    }

  private:
    std::map<std::string, std::vector<std::FILE*>> files_;
    bool complete_ = true;
};

Recorder recorder;

}  // namespace

#define SIM_WRITTEN(fifo, element, bytes) ::recorder.written((fifo).name, element, bytes)

#include "card.cpp"

extern "C" {

int lda_record_to(const char* fifo, const char* path) {
    return recorder.open(fifo, path) ? 0 : 1;
}

int lda_record_end() {
    return recorder.end() ? 0 : 1;
}

}  // extern "C"
