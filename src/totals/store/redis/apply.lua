#!lua
-- Adds frozen sums to a hash, once.
-- KEYS[1]  the hash
-- KEYS[2]  the site's meta hash
-- ARGV     the marker's field, the marker it must bear ('' for none), the marker it bears afterwards,
--          the data set ('' for any), the run that bears the writer ('' for any),
--          what the revision becomes at least ('' to leave it),
--          the day with which the hash is pruned, as YYYYMMDD ('' if it never is),
--          then field, addition, field, addition, ...; of a field that begins with + an entry, as
--          '<text> <number> <writer>', which takes the place of an earlier one only
-- Answers  1 applied, 0 already applied or pruned, or the marker found ('' for none): nothing was written.
--          DETACHED if the data set is another one, or another process bears the writer.
local key, field, prev, marker, dataset, run, revision, ends = KEYS[1], unpack(ARGV, 1, 7)

local meta = redis.call('HMGET', KEYS[2], 'dataset', 'run:' .. string.sub(field, 2), 'pruned')
if (dataset ~= '' and meta[1] ~= dataset) or (run ~= '' and meta[2] ~= run) then
  return redis.error_reply('DETACHED the data set or the bearer of the writer has changed')
end
local found = redis.call('HGET', key, field) or ''
-- Compared as numbers, since the order of strings depends on the server's locale.
local is_pruned = ends ~= '' and meta[3] and ends + 0 < (tonumber((string.gsub(meta[3], '%-', ''))) or 0)
if is_pruned then return 0 end
if found == marker then return 0 end
if found ~= prev then return found end

-- All is read and checked before the one write: a script is not undone when it fails half way.
local argv, find, format, byte = ARGV, string.find, string.format, string.byte
local count = (#argv - 7) / 2
local names = {}
for i = 1, count do names[i] = argv[6 + 2 * i] end
local held = count > 0 and redis.call('HMGET', key, unpack(names)) or {}

local function stamp(entry)
  local number, high, low = string.match(entry, ' (%d+) (%x%x%x%x%x%x%x%x)(%x%x%x%x%x%x%x%x)$')
  if not number then return nil end
  -- Compared as numbers, since the order of strings depends on the server's locale.
  return {tonumber(number), tonumber(high, 16), tonumber(low, 16)}
end
local function is_later(a, b)
  for i = 1, 3 do
    if a[i] ~= b[i] then return a[i] > b[i] end
  end
  return false
end

local writes, n = {field, marker}, 2
for i = 1, count do
  local name, given, old = names[i], argv[7 + 2 * i], held[i]
  local value
  if byte(name) == 43 then
    local before = old and stamp(old)
    if old and not before then
      return redis.error_reply('FOOTFALL the entry of ' .. name .. ' bears no stamp')
    end
    if not before or is_later(stamp(given), before) then value = given end
  else
    old = old or '0'
    if old == '' or find(old, '%D') then
      return redis.error_reply('FOOTFALL the sum of ' .. name .. ' is not a plain number')
    end
    local sum = old + given
    if sum > 9007199254740991 then
      return redis.error_reply('FOOTFALL the sum of ' .. name .. ' would pass 2^53')
    end
    value = format('%.0f', sum)
  end
  if value then
    writes[n + 1], writes[n + 2] = name, value
    n = n + 2
  end
end

if revision ~= '' then
  local old = redis.call('HGET', key, '#revision') or '0'
  if old == '' or find(old, '%D') then
    return redis.error_reply('FOOTFALL the sum of #revision is not a plain number')
  end
  writes[#writes + 1] = '#revision'
  writes[#writes + 1] = format('%.0f', math.min(math.max(old + 1, revision), 9007199254740991))
end

-- One command: Redis then wraps nothing in MULTI, and a torn append file loses it as a whole. It writes
-- sums, not additions, so replaying it is harmless.
redis.call('HSET', key, unpack(writes))
return 1
