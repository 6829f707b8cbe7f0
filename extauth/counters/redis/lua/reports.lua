-- KEYS: the reports of replicas, which replicas.lua keeps. Reply: what each of them is, at most MOST bytes of it; '' = none.

local MOST = 16384
local reports = {}
for i, key in ipairs(KEYS) do
  local report = redis.pcall('GETRANGE', key, 0, MOST - 1)
  reports[i] = type(report) == 'string' and report or ''
end
return reports
