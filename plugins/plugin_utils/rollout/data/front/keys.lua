-- The requests of each API key as Prometheus metrics, from the table in which HAProxy counts them.
-- Written by ascend.pd_rollout.
local metrics = {
    { "http_req_cnt", "pd_front_key_requests_total", "Requests with this API key." },
    { "http_err_cnt", "pd_front_key_client_errors_total", "Requests with this API key that were wrong." },
    { "http_fail_cnt", "pd_front_key_server_errors_total", "Requests with this API key that failed here." },
    { "bytes_in_cnt", "pd_front_key_received_bytes_total", "Bytes received with this API key." },
    { "bytes_out_cnt", "pd_front_key_sent_bytes_total", "Bytes sent to this API key." },
}

core.register_service("keys", "http", function(applet)
    local lines = {}
    local counted = core.proxies["keys"].stktable:dump()
    for _, metric in ipairs(metrics) do
        lines[#lines + 1] = "# HELP " .. metric[2] .. " " .. metric[3]
        lines[#lines + 1] = "# TYPE " .. metric[2] .. " counter"
        for key, entry in pairs(counted) do
            lines[#lines + 1] = metric[2] .. '{key="' .. key .. '"} ' .. tostring(entry[metric[1]])
        end
    end
    local text = table.concat(lines, "\n") .. "\n"
    applet:set_status(200)
    applet:add_header("content-type", "text/plain; version=0.0.4")
    applet:add_header("content-length", tostring(#text))
    applet:start_response()
    applet:send(text)
end)
