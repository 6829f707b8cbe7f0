-- Arguments: (key, state, limit) to look, (key, log, used, …) to wait and to write; the limit's fields are period and quantum, in microseconds, requests, and stamp: the time of the hits that are taken now. sliding_look → the hits used; whether to write the state anew; what is left; what one hit takes; for the reply the hits used and the microseconds until the last of them is out of the window; and the log, if it can be kept. sliding_wait → for the reply, the microseconds until the first call that does not fit will fit.

local MAX_ENTRIES = 10000
local put_log, sliding_look, sliding_wait, sliding_write
if held[SLIDING] then
  local entry, search, read_log = log_functions()

  function put_log(key, period, dropped, base, total, newest, entries)
    if total <= base then
      call('DEL', key)
      return
    end
    call('SET', key, pack('<Bddddd', SLIDING, period, dropped, base, total, newest) .. entries)
    call('PEXPIRE', key, max(ceil((newest + period - now) / 1000), 1) + spare_ms)
  end

  function sliding_look(key, state, limit)
    local period, newest = limit.period, limit.stamp
    local used, stale, log
    if kind_of(state) == SLIDING then
      local read = read_log(key, state, period)
      used = read[USED]
      -- A clock that is set back by less than a tenth of the window is waited out.
      local ahead = used > 0 and read[NEWEST] - now > limit.quantum + floor(period / 10)
      stale = ahead or (used > 0 and read[PERIOD] ~= period)  -- of another one the time to live must change
      if not ahead then log, newest = read, read[NEWEST] end
    else
      used = used_hits(key, state)
      stale = used > 0
    end
    return used, stale, limit.requests - used, 1, used, used > 0 and newest + period - now or 0, log
  end

  -- How long until `excess` more hits are out of the window, of which `used` stand in the log and the rest come now.
  function sliding_wait(key, log, used, excess, limit)
    if excess <= 0 then return 0 end
    if not log or excess > used then
      return max(limit.stamp, used > 0 and log and log[NEWEST] or 0) + limit.period - now
    end
    local at = entry(key, search(key, log[DROPPED], log[COUNT], nil, log[BASE] + excess))
    return max(at + limit.period - now, 1)
  end

  function sliding_write(key, log, used, hits, limit)
    local period, stamp = limit.period, limit.stamp
    if not log then  -- made anew: all hits count from now
      local total = min(max(used + hits, 0), MAX_HITS)
      put_log(key, period, 0, 0, total, stamp, pack('<dd', stamp, total))
      return
    end
    local count, dropped, base, total, newest = log[COUNT], log[DROPPED], log[BASE], log[TOTAL], log[NEWEST]
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
end
