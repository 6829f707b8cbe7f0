-- KEYS: one a counter. ARGV: now_us, limits (see limits.lua), returns. Gives hits back that a counter took at an instant, as far as it still holds just these. Reply: 1.
--
-- returns, '<I4dd' a counter: index into limits from 0, hits, the instant in us of this server's clock.

local function gcra_give_back(key, state, limit, hits, at)
  local backlog, _, interval, ticks_per_us = read_backlog(state)
  if interval ~= limit.interval or ticks_per_us ~= limit.ticks_per_us or now < at then return end
  local left = hits * interval - (now - at) * ticks_per_us  -- as much as it drained since it may have needed no longer
  if left > 0 then gcra_write(key, max(backlog, 0) - left, 0, limit) end
end

local function window_give_back(key, state, limit, hits, at)
  local _, ends, used = unpack('<Bdd', state)
  if ends == at - at % limit.period + limit.period and now < ends then
    put(key, pack('<Bdd', WINDOW, ends, max(used - hits, 0)), ends - now)
  end
end

local function sliding_give_back(key, state, limit, hits, at)
  local entry, search, read_log = log_functions()
  local stamp = ceil(at / limit.quantum) * limit.quantum
  local log = read_log(key, state)
  local count, dropped, base, total = log[COUNT], log[DROPPED], log[BASE], log[TOTAL]
  if log[PERIOD] ~= limit.period or stamp <= now - limit.period then return end
  local own = search(key, dropped, count, stamp - 1)
  if own == count then return end
  local its_at, its_total = entry(key, own)
  if its_at ~= stamp then return end  -- the hits of another instant leave the window at another time
  local before, newest = base, 0
  if own > dropped then newest, before = entry(key, own - 1) end
  hits = min(hits, its_total - before)
  local entries = own > dropped and {call('GETRANGE', key, HEAD + dropped * ENTRY, HEAD + own * ENTRY - 1)} or {}
  local later, position = call('GETRANGE', key, HEAD + own * ENTRY, -1), 1
  while position <= #later do
    local time, up_to
    time, up_to, position = unpack('<dd', later, position)
    up_to = up_to - hits
    if time > stamp or up_to > before then
      entries[#entries + 1], newest = pack('<dd', time, up_to), time
    end
  end
  put_log(key, limit.period, 0, base, total - hits, newest, table.concat(entries))
end

local returns, at = ARGV[3], 1
for i = 1, #KEYS do
  local key, index, hits, taken_at = KEYS[i], nil, nil, nil
  index, hits, taken_at, at = unpack('<I4dd', returns, at)
  local terms = limits[index + 1]
  local state
  if terms.kind == SLIDING then state = pcall('GETRANGE', key, 0, HEAD) else state = pcall('GET', key) end
  if type(state) == 'string' and kind_of(state) == terms.kind then
    if terms.kind == GCRA then
      gcra_give_back(key, state, terms, hits, taken_at)
    elseif terms.kind == WINDOW then
      window_give_back(key, state, terms, hits, taken_at)
    else
      sliding_give_back(key, state, terms, hits, taken_at)
    end
  end
end
return 1
