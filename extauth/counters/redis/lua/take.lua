-- KEYS: one a counter, in the groups' order. ARGV: now_us ('' = this server's clock), limits, groups (both packed, see below), a number. Reply: that number, then a group: admitted, then a counter: whole, rest and, of a sliding window, wait (limiter/counters.py, Level).
--
-- limits, 25 bytes each, '<Bddd': kind (+ 4 where denied hits count), a, b, c. Kind 1, gcra: a = emission interval in
--     ticks, b = ticks per microsecond, c = burst. Kind 2, fixed_window: a = period_us, b = limit, c = 0. Kind 3,
--     sliding_window: a = period_us, b = limit, c = quantum_us.
-- groups, '<I4I4' calls, counters, then '<I4Bd' a counter: index into limits from 0, mode (limiter/counters.py), cost.
--     A key that stands several times in a row in a group is one counter that is held to several limits: its hits are
--     taken once, and written in the terms of the last.
-- State: '<Bddddd' 1, at_us, whole_us, rest, interval, ticks_per_us: at at_us the backlog was whole_us + rest / ticks_per_us
--     microseconds; or '<Bdd' 2, end_us, used; or '<Bddddd' 3, period_us, dropped, base, total, newest_us, and a log of '<dd'
--     at_us, total: the hits since the log began, up to and with those at at_us. Its first `dropped` entries are out of
--     the window, and `base` hits with them. A state in other terms than the limit's, or from a clock that was ahead of
--     this one, is put into the terms of here and now and written so, even on a denial: what the reply tells is what holds.
-- Numbers are doubles: integers up to 2^53 are exact. Never print one with tostring or .., which keep 14 digits.

local call, pcall, pack, unpack = redis.call, redis.pcall, struct.pack, struct.unpack
local floor, ceil, min, max, byte, find = math.floor, math.ceil, math.min, math.max, string.byte, string.find
local GCRA, WINDOW, SLIDING = 1, 2, 3
local ENFORCED, QUOTA, SAME_QUOTA = 0, 1, 2
local MAX_BACKLOG_US = 2 ^ 52
local MAX_HITS = 2 ^ 53 - 1
local MAX_ENTRIES = 10000
local HEAD, ENTRY = 41, 16

local now = tonumber(ARGV[1])
local spare_ms = now and 60000 or 0  -- keys end by the server's clock, which runs on while one that is given may not
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- n * to / from, rounded up; in lowest terms and without the whole part, so that the product stays below 2^53.
local function scale(n, from, to)
  local a, b = from, to
  while b > 0 do a, b = b, a % b end
  from, to = from / a, to / a
  return floor(n / from) * to + ceil(n % from * to / from)
end

-- Of a state by its first 42 bytes; nil where it is none, as the value of whoever shares this database.
local function kind_of(state)
  local kind, size = byte(state), #state
  if (kind == GCRA and size == HEAD) or (kind == WINDOW and size == 17) or (kind == SLIDING and size > HEAD) then
    return kind
  end
end

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

-- A sliding window: {used, count of entries, dropped, base, total, newest_us}.
local function read_log(key, state, period)
  local _, _, dropped, base, total, newest = unpack('<Bddddd', state)
  local count = floor((call('STRLEN', key) - HEAD) / ENTRY)
  if dropped < count and entry(key, dropped) <= now - period then
    local live = search(key, dropped + 1, count, now - period)
    local _, gone = entry(key, live - 1)
    dropped, base = live, gone
  end
  return {total - base, count, dropped, base, total, newest}
end

-- All three: what a limit has used of its capacity, and whether the state must be written anew.

-- In ticks. A state of another limit counts as so many hits, each at this interval.
local function gcra_level(key, state, interval, ticks_per_us)
  if state == '' then return 0, false end
  local kind = kind_of(state)
  if kind == GCRA then
    local _, at, whole, rest, old_interval, old_ticks_per_us = unpack('<Bddddd', state)
    local level = (whole - max(now - at, 0)) * old_ticks_per_us + rest
    if not (level > 0) then return 0, false end
    if interval == old_interval and ticks_per_us == old_ticks_per_us then return level, now < at end
    return min(scale(level, old_interval, interval), MAX_BACKLOG_US * ticks_per_us), true
  end
  local used = 0
  if kind == WINDOW then
    local _, ends, hits = unpack('<Bdd', state)
    if now < ends then used = hits end
  elseif kind == SLIDING then
    local _, period = unpack('<Bd', state)
    used = read_log(key, state, period)[1]
  end
  return min(used * interval, MAX_BACKLOG_US * ticks_per_us), used > 0
end

-- In hits, of a state that is none of the limit's own algorithm.
local function foreign_hits(key, state)
  local kind = kind_of(state)
  if kind == GCRA then
    local _, at, whole, rest, interval, ticks_per_us = unpack('<Bddddd', state)
    local level = (whole - max(now - at, 0)) * ticks_per_us + rest
    return level > 0 and min(ceil(level / interval), MAX_HITS) or 0
  elseif kind == WINDOW then
    local _, ends, used = unpack('<Bdd', state)
    return now < ends and used or 0
  elseif kind == SLIDING then
    local _, period = unpack('<Bd', state)
    return read_log(key, state, period)[1]
  end
  return 0
end

local function window_used(key, state, ends)
  if state == '' then return 0, false end
  if kind_of(state) == WINDOW then
    local _, old_ends, used = unpack('<Bdd', state)
    if now < old_ends then return used, old_ends ~= ends end
    return 0, false
  end
  local used = foreign_hits(key, state)
  return used, used > 0
end

local function sliding_used(key, state, period, quantum)
  if kind_of(state) == SLIDING then
    local log = read_log(key, state, period)
    -- A clock that is set back by less than a tenth of the window is waited out.
    local ahead = log[1] > 0 and log[6] - now > quantum + floor(period / 10)
    local _, old_period = unpack('<Bd', state)  -- of another one the time to live must change
    return log[1], ahead or (log[1] > 0 and old_period ~= period), not ahead and log or nil
  end
  local used = foreign_hits(key, state)
  return used, used > 0, nil
end

local function put_log(key, period, dropped, base, total, newest, entries)
  if total <= base then
    call('DEL', key)
    return
  end
  call('SET', key, pack('<Bddddd', SLIDING, period, dropped, base, total, newest) .. entries)
  call('PEXPIRE', key, max(ceil((newest + period - now) / 1000), 1) + spare_ms)
end

local function write_log(key, log, used, hits, period, quantum)
  local stamp = ceil(now / quantum) * quantum
  if not log then  -- made anew: all hits count from now
    local total = min(max(used + hits, 0), MAX_HITS)
    put_log(key, period, 0, 0, total, stamp, pack('<dd', stamp, total))
    return
  end
  local count, dropped, base, total, newest = log[2], log[3], log[4], log[5], log[6]
  if hits < 0 then  -- the newest are given back first
    total = max(total + hits, base)
    local last = total > base and search(key, dropped, count, nil, total) or dropped
    local at = total > base and entry(key, last) or now
    local kept = last > dropped and call('GETRANGE', key, HEAD + dropped * ENTRY, HEAD + last * ENTRY - 1) or ''
    put_log(key, period, 0, base, total, at, kept .. pack('<dd', at, total))
    return
  end
  total = min(total + hits, MAX_HITS)
  if hits == 0 then
    -- Only the head is written anew.
  elseif count > dropped and (newest >= stamp or count - dropped >= MAX_ENTRIES) then
    newest = max(newest, stamp)
    call('SETRANGE', key, HEAD + (count - 1) * ENTRY, pack('<dd', newest, total))
  else
    newest = stamp
    call('APPEND', key, pack('<dd', newest, total))
  end
  if dropped > 64 and dropped * 2 > count then
    put_log(key, period, 0, base, total, newest, call('GETRANGE', key, HEAD + dropped * ENTRY, -1))
  else
    call('SETRANGE', key, 0, pack('<Bddddd', SLIDING, period, dropped, base, total, newest))
    call('PEXPIRE', key, max(ceil((newest + period - now) / 1000), 1) + spare_ms)
  end
end

-- How long until `excess` more hits are out of the window, of which `used` stand in the log and the rest come now.
local function wait_us(key, log, used, excess, period, quantum)
  if excess <= 0 then return 0 end
  if not log or excess > used then
    return max(ceil(now / quantum) * quantum, used > 0 and log and log[6] or 0) + period - now
  end
  local at = entry(key, search(key, log[3], log[2], nil, log[4] + excess))
  return max(at + period - now, 1)
end

local limits, groups = ARGV[2], ARGV[3]
local reply, length = {tonumber(ARGV[4])}, 1
local at, key_index = 1, 0
local levels, stale, logs, fits, indices, modes, costs = {}, {}, {}, {}, {}, {}, {}

while at <= #groups do
  local calls, size
  calls, size, at = unpack('<I4I4', groups, at)
  local admitted, quotas, quota, any_quota = calls, 0, 0, false
  length = length + 1
  local admitted_at = length
  for i = 1, size do
    local index, mode, cost
    index, mode, cost, at = unpack('<I4Bd', groups, at)
    local flags, a, b, c = unpack('<Bddd', limits, index * 25 + 1)
    local kind = flags % 4
    local key = KEYS[key_index + i]
    -- pcall: a value of another type is no state either.
    local state
    if kind == SLIDING then state = pcall('GETRANGE', key, 0, HEAD) else state = pcall('GET', key) end
    if type(state) ~= 'string' then
      -- Whatever else it fails for, such as a right that the user lacks, must not admit calls.
      if state and not find(state.err, 'WRONGTYPE', 1, true) then return state end
      state = ''
    end
    local left, one
    if kind == GCRA then
      local level
      level, stale[i] = gcra_level(key, state, a, b)
      levels[i] = level
      reply[length + 1] = floor(level / b)
      reply[length + 2] = level % b
      left, one = c * a - level, a
    else
      local used
      if kind == WINDOW then
        used, stale[i] = window_used(key, state, now - now % a + a)
        reply[length + 2] = a - now % a
      else
        local log
        used, stale[i], log = sliding_used(key, state, a, c)
        logs[i] = log
        reply[length + 2] = used > 0 and (log and log[6] or ceil(now / c) * c) + a - now or 0
      end
      levels[i] = used
      reply[length + 1] = used
      left, one = b - used, 1
    end
    length = length + 2
    local fit = calls
    if cost > 0 then
      fit = max(floor(left / (cost * one)), 0)
    elseif cost == 0 and left < one then
      fit = 0
    end
    if mode == ENFORCED then
      admitted = min(admitted, fit)
    elseif mode == QUOTA then
      any_quota = true
      quotas = max(quotas, quota)
      quota = fit
    elseif mode == SAME_QUOTA then
      quota = min(quota, fit)
    end
    if kind == SLIDING then  -- its wait, once it is known who is admitted
      length = length + 1
    end
    fits[i], indices[i], modes[i], costs[i] = fit, index, mode, cost
  end
  if any_quota then admitted = min(admitted, max(quotas, quota)) end
  reply[admitted_at] = admitted

  local reply_at = admitted_at
  for i = 1, size do
    local flags, a, b, c = unpack('<Bddd', limits, indices[i] * 25 + 1)
    local kind = flags % 4
    local key = KEYS[key_index + i]
    local last = i == size or KEYS[key_index + i + 1] ~= key
    local takes = flags < 4 and admitted or calls
    if flags < 4 and modes[i] ~= ENFORCED then takes = min(admitted, fits[i]) end
    local hits = takes * costs[i]
    reply_at = reply_at + 2
    if kind == SLIDING then
      reply_at = reply_at + 1
      local excess = fits[i] < calls and levels[i] + max(hits, 0) + max(costs[i], 1) - b or 0
      reply[reply_at] = wait_us(key, logs[i], levels[i], excess, a, c)
      if last and (hits ~= 0 and (hits > 0 or levels[i] > 0) or stale[i]) then
        write_log(key, logs[i], levels[i], hits, a, c)
      end
    elseif last and (hits > 0 or stale[i] or (hits < 0 and levels[i] > 0)) then
      local new, for_us
      if kind == GCRA then
        local level = max(min(levels[i] + hits * a, MAX_BACKLOG_US * b), 0)
        local whole = floor(level / b)
        new, for_us = pack('<Bddddd', GCRA, now, whole, level % b, a, b), whole + 1
      else
        for_us = a - now % a
        new = pack('<Bdd', WINDOW, now + for_us, max(min(levels[i] + hits, MAX_HITS), 0))
      end
      call('SET', key, new, 'PX', ceil(for_us / 1000) + spare_ms)
    end
  end
  key_index = key_index + size
end

return reply
