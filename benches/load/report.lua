-- What wrk found, on one line for the harness. Only called at the end: a script without `request` or `response` costs
-- nothing while the load runs.
function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      "report requests=%d duration_us=%d connect=%d read=%d write=%d status=%d timeout=%d p50_us=%.0f p99_us=%.0f\n",
      summary.requests, summary.duration, errors.connect, errors.read, errors.write, errors.status, errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
