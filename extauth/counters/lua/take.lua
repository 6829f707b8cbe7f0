-- ARGV: now_us ('' = this server's clock), then a group: calls, counters, then a counter: algorithm, count_denied, cost, a, b, c. KEYS: one a counter, in order. Reply: now_us, then a group: admitted, then a counter: whole, rest (limiter/counters.py, Level).
--
-- algorithm g, gcra: a = emission interval in ticks, b = ticks per microsecond, c = burst.
--           f, fixed_window: a = period_us, b = limit, c unused.
-- State: 'g tat_us rest interval ticks_per_us', where tat = tat_us + rest / ticks_per_us microseconds,
--     or 'f end_us used'. Either is read under any limit: what is used stays used when the limit changes.
-- Numbers are doubles: integers up to 2^53 are exact. Never print one with tostring or .., which keep 14 digits.

local MAX_BACKLOG_US = 2 ^ 52
local MAX_HITS = 2 ^ 53 - 1

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- The state as hits used so far under some gcra limit or in some window, or nil. pcall: a foreign value is no state.
local function parse(key)
  local state = redis.pcall('GET', key)
  if type(state) ~= 'string' then return nil end
  local tat, rest, interval, ticks_per_us = state:match('^g (%d+) (%d+) (%d+) (%d+)$')
  if tat then
    interval, ticks_per_us = tonumber(interval), tonumber(ticks_per_us)
    local level = (tat - now) * ticks_per_us + rest
    if level > 0 then return {level = level, interval = interval, ticks_per_us = ticks_per_us} end
    return nil
  end
  local ends, used = state:match('^f (%d+) (%d+)$')
  if ends and now < tonumber(ends) then return {used = tonumber(used)} end
  return nil
end

-- n * to / from, rounded up; in lowest terms and without the whole part, so that the product stays below 2^53.
local function scale(n, from, to)
  local a, b = from, to
  while b > 0 do a, b = b, a % b end
  from, to = from / a, to / a
  return math.floor(n / from) * to + math.ceil(n % from * to / from)
end

-- The backlog in ticks under the asked limit. Rescaled: as many hits as before, each at the new emission interval.
local function gcra_level(state, interval, ticks_per_us)
  if not state then return 0 end
  if state.used then return math.min(state.used * interval, MAX_BACKLOG_US * ticks_per_us) end
  if state.interval == interval and state.ticks_per_us == ticks_per_us then return state.level end
  return math.min(scale(state.level, state.interval, interval), MAX_BACKLOG_US * ticks_per_us)
end

local function window_used(state)
  if not state then return 0 end
  return state.used or math.min(math.ceil(state.level / state.interval), MAX_HITS)
end

local function put(key, until_us, format, ...)
  local ttl_ms = math.max(math.ceil((until_us - now) / 1000), 1)
  redis.call('SET', key, string.format(format, ...), 'PX', string.format('%.0f', ttl_ms))
end

local reply = {now}
local argument, key_index = 2, 1

while argument < #ARGV do
  local calls, size = tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  argument = argument + 2
  local counters = {}
  local admitted = calls
  for i = 1, size do
    local counter = {
      key = KEYS[key_index],
      gcra = ARGV[argument] == 'g',
      count_denied = ARGV[argument + 1] == '1',
      cost = tonumber(ARGV[argument + 2]),
      a = tonumber(ARGV[argument + 3]),
      b = tonumber(ARGV[argument + 4]),
    }
    local room, cost
    local state = parse(counter.key)
    if counter.gcra then
      counter.level = gcra_level(state, counter.a, counter.b)
      cost = counter.cost * counter.a
      room = tonumber(ARGV[argument + 5]) * counter.a - counter.level
    else
      counter.used = window_used(state)
      cost = counter.cost
      room = counter.b - counter.used
    end
    admitted = math.max(math.min(admitted, math.floor(room / cost)), 0)
    counters[i] = counter
    argument = argument + 6
    key_index = key_index + 1
  end

  reply[#reply + 1] = admitted
  for _, counter in ipairs(counters) do
    local hits = (counter.count_denied and calls or admitted) * counter.cost
    if counter.gcra then
      local interval, ticks_per_us = counter.a, counter.b
      reply[#reply + 1] = math.floor(counter.level / ticks_per_us)
      reply[#reply + 1] = counter.level % ticks_per_us
      if hits > 0 then
        local level = math.min(counter.level + hits * interval, MAX_BACKLOG_US * ticks_per_us)
        local tat = now + math.floor(level / ticks_per_us)
        put(counter.key, tat + 1, 'g %.0f %.0f %.0f %.0f', tat, level % ticks_per_us, interval, ticks_per_us)
      end
    else
      local ends = now - now % counter.a + counter.a
      reply[#reply + 1] = counter.used
      reply[#reply + 1] = ends - now
      if hits > 0 then
        put(counter.key, ends, 'f %.0f %.0f', ends, math.min(counter.used + hits, MAX_HITS))
      end
    end
  end
end

return reply
