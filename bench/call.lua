-- wrk: one MCP tools/call after the other, with the tokens of many people in turn. Prints what is counted as JSON.
local tokens, tool, number = {}, "echo", 0

function init(args)
  tool = args[2]
  for line in io.lines(args[1]) do tokens[#tokens + 1] = line end
  wrk.method = "POST"
end

function request()
  number = number + 1
  local body = '{"jsonrpc":"2.0","id":' .. number .. ',"method":"tools/call","params":{"name":"' .. tool ..
    '","arguments":{"text":"call ' .. number .. '"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",' ..
    '"io.modelcontextprotocol/clientCapabilities":{},' ..
    '"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}}}}'
  local headers = {
    ["Authorization"] = "Bearer " .. tokens[number % #tokens + 1],
    ["Content-Type"] = "application/json",
    ["Accept"] = "application/json, text/event-stream",
    ["MCP-Protocol-Version"] = "2026-07-28",
    ["Mcp-Method"] = "tools/call",
    ["Mcp-Name"] = tool,
  }
  return wrk.format("POST", nil, headers, body)
end

function done(summary, latency)
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('JSON{"calls":%d,"micros":%d,"not_200":%d,"errors":%d,"p50":%.1f,"p99":%.1f}\n',
    summary.requests, summary.duration, summary.errors.status, errors, latency:percentile(50), latency:percentile(99)))
end
