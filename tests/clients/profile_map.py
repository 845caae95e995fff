# A user profile as an application keeps it, through the unmodified PyPI package "riak" 2.7.0 (Python 2.7 or 3.6).
#   profile_map.py HOST PORT build STATE    builds a profile, changes it from two clients, removes fields
#   profile_map.py HOST PORT check STATE    reads it again, on a server that was killed meanwhile, and goes on
# STATE is a file that carries from one call to the next what a client held. Called by python.sh.
from __future__ import print_function
import base64
import json
import os
import sys

import riak
from riak.datatypes import Map

HOST, PORT, PHASE, STATE = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
BUCKET, KEY = 'profiles', 'alice'
failures = []
passed = 0


def check(what, got, wanted):
    global passed
    if got == wanted:
        passed += 1
        print('ok    %s' % what)
    else:
        failures.append(what)
        print('FAIL  %s\n      got    %r\n      wanted %r' % (what, got, wanted))


def connect():
    client = riak.RiakClient(protocol='pbc', host=HOST, pb_port=PORT)
    return client.bucket_type('maps').bucket(BUCKET)


def plain(value):
    """A map's value with text and sorted lists, the same on both Pythons."""
    if isinstance(value, dict):
        return dict(('%s.%s' % name, plain(inner)) for name, inner in value.items())
    if isinstance(value, (set, frozenset)):
        return sorted(str(member) for member in value)
    if isinstance(value, (bool, int)) or type(value).__name__ == 'long':
        return value
    return str(value)


def read(bucket, key=KEY):
    return plain(bucket.get(key).value)


BUILT = {
    'visits.counter': 1,
    'interests.set': ['chess', 'cycling'],
    'name.register': 'Alice',
    'nickname.register': 'Al',
    'subscribed.flag': True,
    'address.map': {
        'city.register': 'Paris',
        'street.register': 'Rue A',
        'moves.counter': 2,
        'verified.flag': False,
        'residents.set': ['alice', 'bob'],
    },
}

FINAL = {
    # 1, then +2 of one client and +5 of the other; the removal with the older context does not undo what it has not seen.
    'visits.counter': 8,
    # The field was removed by a client that had not seen `go`.
    'interests.set': ['go'],
    'name.register': 'Alice B.',
    # Disabled by a client that had not seen that it was enabled again.
    'subscribed.flag': True,
    'address.map': {
        'city.register': 'Berlin',
        'moves.counter': 3,
        'verified.flag': True,
        'residents.set': ['alice', 'carol'],
    },
}


def build():
    first, second = connect(), connect()
    check('an absent profile is empty', read(first), {})

    profile = Map(first, KEY)
    profile.counters['visits'].increment()
    profile.sets['interests'].add('cycling')
    profile.sets['interests'].add('chess')
    profile.registers['name'].assign('Alice')
    profile.registers['nickname'].assign('Al')
    profile.flags['subscribed'].enable()
    address = profile.maps['address']
    address.registers['city'].assign('Paris')
    address.registers['street'].assign('Rue A')
    address.counters['moves'].increment(2)
    address.sets['residents'].add('alice')
    address.sets['residents'].add('bob')
    profile.store()
    check('what the first store returned', read_of(profile), without_verified(BUILT))

    # A flag can be disabled only with a context; it comes into being as false.
    profile.maps['address'].flags['verified'].disable()
    profile.store()
    check('the whole profile', read(first), BUILT)

    # Both clients hold the same context from here on, and do not see each other's changes.
    mine, yours = first.get(KEY), second.get(KEY)

    yours.counters['visits'].increment(2)
    yours.sets['interests'].add('go')
    yours.flags['subscribed'].enable()
    yours.maps['address'].registers['city'].assign('Berlin')
    yours.maps['address'].counters['moves'].increment()
    yours.maps['address'].flags['verified'].enable()
    yours.maps['address'].sets['residents'].add('carol')
    yours.store()

    mine.counters['visits'].increment(5)
    mine.registers['name'].assign('Alice B.')
    mine.flags['subscribed'].disable()
    mine.maps['address'].sets['residents'].discard('bob')
    del mine.sets['interests']
    del mine.registers['nickname']
    del mine.maps['address'].registers['street']
    mine.store()
    check('what the client with the stale context is told', read_of(mine), FINAL)
    check('what the other client reads', read(second), FINAL)

    # yours still holds the context from before mine's changes: counter fields that were raised since stay.
    stale = second.get(KEY)
    before = stale.context
    raise_by(first, KEY, 1)
    del stale.counters['visits']
    stale.store()
    check('a counter raised since is not removed', read_of(stale)['visits.counter'], 9)
    raise_by(first, KEY, -1)
    check('the profile in the end', read(first), FINAL)

    # Removed and made again, in one request: it starts anew.
    other = Map(first, 'bob')
    other.counters['visits'].increment(40)
    other.registers['name'].assign('Bob')
    other.store()
    del other.counters['visits']
    other.counters['visits'].increment(2)
    other.store()
    check('a counter removed and raised in one request', read(second, 'bob'), {'visits.counter': 2, 'name.register': 'Bob'})

    gone = Map(first, 'carol')
    gone.registers['name'].assign('Carol')
    gone.store()
    gone.delete()
    check('a deleted profile is empty', read(second, 'carol'), {})

    with open(STATE, 'w') as state:
        json.dump({'context': base64.b64encode(before).decode()}, state)


def check_after_kill():
    bucket = connect()
    check('the profile after kill -9', read(bucket), FINAL)
    check('the other profile after kill -9', read(bucket, 'bob'), {'visits.counter': 2, 'name.register': 'Bob'})
    check('the deleted profile after kill -9', read(bucket, 'carol'), {})

    # A context from before the kill removes what it saw, and nothing else.
    with open(STATE) as state:
        context = base64.b64decode(json.load(state)['context'])
    raise_by(bucket, KEY, 1)
    profile = bucket.get(KEY)
    profile._context = context
    del profile.registers['name']
    profile.sets['interests'].add('chess')
    profile.store()
    wanted = dict(FINAL, **{'visits.counter': 9, 'interests.set': ['chess', 'go']})
    del wanted['name.register']
    check('removed with a context from before kill -9', read(bucket), wanted)


def raise_by(bucket, key, amount):
    profile = bucket.get(key)
    profile.counters['visits'].increment(amount)
    profile.store()


def read_of(profile):
    return plain(profile.value)


def without_verified(expected):
    address = dict(expected['address.map'])
    del address['verified.flag']
    return dict(expected, **{'address.map': address})


{'build': build, 'check': check_after_kill}[PHASE]()
print('%d passed, %d failed' % (passed, len(failures)))
sys.stdout.flush()
# The client's worker threads would keep the process alive.
os._exit(1 if failures or not passed else 0)
