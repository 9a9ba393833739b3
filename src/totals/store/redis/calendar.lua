#!lua
-- Notes the calendar that a site's days and weeks are cut in. Where its weeks begin on another day than
-- before, the running week, which bears a new name, is made the sum of its days.
-- KEYS[1]  the site's meta hash
-- KEYS[2]  the running week's hash
-- KEYS[3…] the hashes of its days up to today
-- ARGV     the calendar as '<zone> <first day of the week>', when this is, the fields that are summed
-- Answers  the calendar before, if it was another one
local meta, week = KEYS[1], KEYS[2]
local calendar, at = ARGV[1], ARGV[2]

local before = redis.call('HGET', meta, 'calendar')
if before == calendar then return false end

local function first_day(text) return string.match(text, '%S+$') end
if before and first_day(before) ~= first_day(calendar) then
  local sums = {}
  for i = 3, #KEYS do
    local day = redis.call('HMGET', KEYS[i], unpack(ARGV, 3))
    for j = 1, #ARGV - 2 do
      if day[j] and (day[j] == '' or string.find(day[j], '%D')) then
        return redis.error_reply('FOOTFALL a sum of ' .. KEYS[i] .. ' is not a plain number')
      end
      sums[j] = (sums[j] or 0) + (day[j] or 0)
    end
  end
  local fields = {}
  for j, sum in ipairs(sums) do
    if sum > 9007199254740991 then
      return redis.error_reply('FOOTFALL the sum of the days of ' .. week .. ' would pass 2^53')
    end
    fields[2 * j - 1], fields[2 * j] = ARGV[j + 2], string.format('%.0f', sum)
  end
  redis.call('HSET', week, unpack(fields))
end
-- Written last: where the append file is torn before it, all is done again.
if before then
  redis.call('HSET', meta, 'calendar', calendar, 'calendar:' .. at, before .. ' to ' .. calendar)
else
  redis.call('HSET', meta, 'calendar', calendar)
end
return before
