// The simulation's report as JSON.
#ifndef LDA_REPORT_JSON_HPP
#define LDA_REPORT_JSON_HPP

#include <cstdint>
#include <cstdio>
#include <string>

#include "report.hpp"

namespace lda {

inline std::string json_string(const std::string& text) {
    std::string quoted = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            quoted += '\\';
            quoted += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escaped[8];
            std::snprintf(escaped, sizeof escaped, "\\u%04x", unsigned(c));
            quoted += escaped;
        } else {
            quoted += c;
        }
    }
    return quoted + "\"";
}

inline std::string json_member(const char* name, int64_t value) {
    return ", \"" + std::string(name) + "\": " + std::to_string(value);
}

inline std::string report_json(const sim::Report& report) {
    std::string json = "{\"status\": " + json_string(sim::to_string(report.status)) +
                       ", \"text\": " + json_string(report.text) +
                       json_member("cycles", report.cycles) + ", \"processes\": [";
    const char* comma = "";
    for (const sim::ProcessReport& process : report.processes) {
        json += comma + ("{\"name\": " + json_string(process.name)) +
                ", \"main\": " + (process.main ? "true" : "false") +
                json_member("cycles", process.cycles) + json_member("working", process.working) +
                json_member("starved", process.starved) + json_member("blocked", process.blocked) +
                json_member("draining", process.draining) + "}";
        comma = ", ";
    }
    json += "], \"fifos\": [";
    comma = "";
    for (const sim::FifoReport& fifo : report.fifos) {
        json += comma + ("{\"name\": " + json_string(fifo.name)) +
                ", \"producer\": " + json_string(fifo.producer) +
                ", \"consumer\": " + json_string(fifo.consumer) + json_member("depth", fifo.depth) +
                json_member("tokens", fifo.tokens) + json_member("fill", fifo.fill) +
                json_member("peak", fifo.peak) + json_member("starved", fifo.starved) +
                json_member("blocked", fifo.blocked) + "}";
        comma = ", ";
    }
    return json + "]}";
}

}  // namespace lda

#endif
