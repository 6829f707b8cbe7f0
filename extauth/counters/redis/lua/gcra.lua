-- Arguments: (key, state, limit) to look, (key, level, hits, limit) to write; the limit's fields are interval, in ticks, ticks_per_us and burst. gcra_look → level, in ticks; whether to write the state anew; what is left; what one hit takes; and for the reply the backlog's whole microseconds and the rest in ticks.

local gcra_look, gcra_write
if held[GCRA] then
  -- n * to / from, rounded up; in lowest terms and without the whole part, so that the product stays below 2^53.
  local function scale(n, from, to)
    local a, b = from, to
    while b > 0 do a, b = b, a % b end
    from, to = from / a, to / a
    return floor(n / from) * to + ceil(n % from * to / from)
  end

  function gcra_look(key, state, limit)
    local interval, ticks_per_us = limit.interval, limit.ticks_per_us
    local level, stale = 0, false
    if state == '' then
      -- Nothing is used.
    elseif kind_of(state) == GCRA then
      local backlog, at, old_interval, old_ticks_per_us = read_backlog(state)
      if not (backlog > 0) then
        -- It has drained.
      elseif interval == old_interval and ticks_per_us == old_ticks_per_us then
        level, stale = backlog, now < at
      else
        level, stale = min(scale(backlog, old_interval, interval), MAX_BACKLOG_US * ticks_per_us), true
      end
    else
      local used = used_hits(key, state)
      level, stale = min(used * interval, MAX_BACKLOG_US * ticks_per_us), used > 0
    end
    return level, stale, limit.burst * interval - level, interval, floor(level / ticks_per_us), level % ticks_per_us
  end

  function gcra_write(key, level, hits, limit)
    local interval, ticks_per_us = limit.interval, limit.ticks_per_us
    level = max(min(level + hits * interval, MAX_BACKLOG_US * ticks_per_us), 0)
    local whole = floor(level / ticks_per_us)
    put(key, pack('<Bddddd', GCRA, now, whole, level % ticks_per_us, interval, ticks_per_us), whole + 1)
  end
end
