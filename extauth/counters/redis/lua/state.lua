-- Arguments: ARGV[1], now_us ('' = this server's clock). Defines for the files after it: the clock (now, spare_ms), the bounds of numbers, kind_of(state) → kind, used_hits(key, state) → hits, and what reads and writes states. log_functions() → entry, search, read_log, which read logs.
--
-- take.lua is run as one script: state, limits, gcra, fixed_window, sliding_window and take.lua, joined in this order. In
--     place of take.lua, settle.lua and give_back.lua make scripts of their own.
-- Redis keeps nothing of a script between its runs, and each function that a run defines costs it 0.2 to 0.3 µs. So functions that few
--     runs need are defined where they are needed.
-- States: '<Bddddd' 1, at_us, whole_us, rest, interval, ticks_per_us: at at_us the backlog was whole_us + rest / ticks_per_us
--     microseconds; or '<Bdd' 2, end_us, used; or '<Bddddd' 3, period_us, dropped, base, total, newest_us, and a log of '<dd'
--     at_us, total: the hits since the log began, up to and with those at at_us. Its first `dropped` entries are out of
--     the window, and `base` hits with them. A state in other terms than the limit's, or from a clock that was ahead of
--     this one, is put into the terms of here and now and written so, even on a denial: the reply describes what is stored.
-- Numbers are doubles: integers up to 2^53 are exact. Never print one with tostring or .., which keep 14 digits.

local call, pcall, pack, unpack = redis.call, redis.pcall, struct.pack, struct.unpack
local floor, ceil, min, max, byte, find = math.floor, math.ceil, math.min, math.max, string.byte, string.find
local GCRA, WINDOW, SLIDING = 1, 2, 3
local MAX_BACKLOG_US = 2 ^ 52
local MAX_HITS = 2 ^ 53 - 1
local HEAD, ENTRY = 41, 16
local USED, COUNT, DROPPED, BASE, TOTAL, NEWEST, PERIOD = 1, 2, 3, 4, 5, 6, 7  -- the fields of a log that was read

local now = tonumber(ARGV[1])
local spare_ms = now and 60000 or 0  -- keys end by the server's clock, which runs on while one that is given may not
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- Of a state by its first 42 bytes; nil where it is none, as the value of whoever shares this database.
local function kind_of(state)
  local kind, size = byte(state), #state
  if (kind == GCRA and size == HEAD) or (kind == WINDOW and size == 17) or (kind == SLIDING and size > HEAD) then
    return kind
  end
end

local function log_functions()
  local function entry(key, i)
    local at = HEAD + i * ENTRY
    return unpack('<dd', call('GETRANGE', key, at, at + ENTRY - 1))
  end

  -- The first of the log's entries from `low` to before `high` that is later than `at`, or with `total` reaches so many hits.
  local function search(key, low, high, at, total)
    while low < high do
      local middle = floor((low + high) / 2)
      local its_at, its_total = entry(key, middle)
      if (at and its_at > at) or (total and its_total >= total) then high = middle else low = middle + 1 end
    end
    return low
  end

  -- A sliding window of `period`, by default the state's own: an array of the fields named above.
  local function read_log(key, state, period)
    local _, own_period, dropped, base, total, newest = unpack('<Bddddd', state)
    period = period or own_period
    local count = floor((call('STRLEN', key) - HEAD) / ENTRY)
    if dropped < count and entry(key, dropped) <= now - period then
      local live = search(key, dropped + 1, count, now - period)
      local _, gone = entry(key, live - 1)
      dropped, base = live, gone
    end
    return {total - base, count, dropped, base, total, newest, own_period}
  end

  return entry, search, read_log
end

-- In the ticks of the state, and below 0 where it has drained for long; and what the state says of itself.
local function read_backlog(state)
  local _, at, whole, rest, interval, ticks_per_us = unpack('<Bddddd', state)
  return (whole - max(now - at, 0)) * ticks_per_us + rest, at, interval, ticks_per_us
end

-- The hits that a state of any kind holds, in its own terms.
local function used_hits(key, state)
  local kind = kind_of(state)
  if kind == GCRA then
    local backlog, _, interval = read_backlog(state)
    return backlog > 0 and min(ceil(backlog / interval), MAX_HITS) or 0
  elseif kind == WINDOW then
    local _, ends, used = unpack('<Bdd', state)
    return now < ends and used or 0
  elseif kind == SLIDING then
    local _, _, read_log = log_functions()
    return read_log(key, state)[USED]
  end
  return 0
end

-- The key's TTL is `for_us`: then the state is that of an unused counter (the bucket is full again, the window has ended). sliding_window.lua sets that of a log.
local function put(key, state, for_us)
  call('SET', key, state, 'PX', ceil(for_us / 1000) + spare_ms)
end
