-- Requests of one kind (STREAM=true|false); what wrk has measured, as JSON on a line of its own.
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer " .. os.getenv("KEY")
wrk.body = '{"model": "deepseek_v3", "prompt": "one two three four five six", "max_tokens": 500, "stream": ' .. os.getenv("STREAM") .. "}"

function done(summary, latency, _)
    local failed = summary.errors
    print(string.format(
        '{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "failed": %d}',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        failed.connect + failed.read + failed.write + failed.status + failed.timeout
    ))
end
