-- KEYS: one a counter, in the groups' order. ARGV: now_us, limits (see limits.lua), groups (packed, see below), a number, and where given, of each group how many calls may be admitted ('<I4'). Reply: that number, the time in us, then a group: admitted, then a counter: its algorithm's numbers.
--
-- groups, '<I4I4' calls, counters, then '<I4Bd' a counter: index into limits from 0, mode (limiter/counters.py), cost.
--     A key that stands several times in a row in a group is one counter that is held to several limits: its hits are
--     taken once, and written in the terms of the last.

local ENFORCED, QUOTA, SAME_QUOTA = 0, 1, 2

local groups, mosts, most_at = ARGV[3], ARGV[5], 1
local reply, length = {tonumber(ARGV[4]), now}, 2
local at, key_index = 1, 0
local levels, stale, logs, lefts, fits, held_to, modes, costs = {}, {}, {}, {}, {}, {}, {}, {}

while at <= #groups do
  local calls, size
  calls, size, at = unpack('<I4I4', groups, at)
  local admitted, quotas, quota, any_quota = calls, 0, 0, false
  if mosts then admitted, most_at = unpack('<I4', mosts, most_at) end  -- other shards deny the rest
  length = length + 1
  local admitted_at = length
  for i = 1, size do
    local index, mode, cost
    index, mode, cost, at = unpack('<I4Bd', groups, at)
    local limit = limits[index + 1]
    local kind = limit.kind
    local key = KEYS[key_index + i]
    -- pcall: a value of another type is no state either.
    local state
    if kind == SLIDING then state = pcall('GETRANGE', key, 0, HEAD) else state = pcall('GET', key) end
    if type(state) ~= 'string' then
      -- Whatever else it fails for, such as a right that the user lacks, must not admit calls.
      if state and not find(state.err, 'WRONGTYPE', 1, true) then return state end
      state = ''
    end
    local level, must_write, left, one, whole, rest
    if kind == GCRA then
      level, must_write, left, one, whole, rest = gcra_look(key, state, limit)
    elseif kind == WINDOW then
      level, must_write, left, one, whole, rest = window_look(key, state, limit)
    else
      level, must_write, left, one, whole, rest, logs[i] = sliding_look(key, state, limit)
    end
    reply[length + 1], reply[length + 2] = whole, rest
    length = length + 2
    if kind == SLIDING then  -- its wait, once it is known who is admitted
      length = length + 1
    end
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
    levels[i], stale[i], lefts[i], fits[i] = level, must_write, left, fit
    held_to[i], modes[i], costs[i] = limit, mode, cost
  end
  if any_quota then admitted = min(admitted, max(quotas, quota)) end
  reply[admitted_at] = admitted

  local reply_at = admitted_at
  for i = 1, size do
    local limit, level = held_to[i], levels[i]
    local kind = limit.kind
    local key = KEYS[key_index + i]
    local takes = limit.counts_denied and not (limit.stops and fits[i] > admitted) and calls or admitted
    if not limit.counts_denied and modes[i] ~= ENFORCED then takes = min(admitted, fits[i]) end
    local hits = takes * costs[i]
    reply_at = reply_at + 2
    if kind == SLIDING then
      reply_at = reply_at + 1
      local excess = fits[i] < calls and max(hits, 0) + max(costs[i], 1) - lefts[i] or 0
      reply[reply_at] = sliding_wait(key, logs[i], level, excess, limit)
    end
    local last = i == size or KEYS[key_index + i + 1] ~= key
    if last and (hits > 0 or stale[i] or (hits < 0 and level > 0)) then
      if kind == GCRA then
        gcra_write(key, level, hits, limit)
      elseif kind == WINDOW then
        window_write(key, level, hits, limit)
      else
        sliding_write(key, logs[i], level, hits, limit)
      end
    end
  end
  key_index = key_index + size
end

return reply
