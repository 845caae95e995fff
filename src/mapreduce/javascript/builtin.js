// What a job's functions find beside the language: the functions of Riak 2 by name, and a clock that stands still.

var Riak = {
  filterNotFound: function (values) {
    return values.filter(function (value) {
      return value === null || value === undefined || value["not_found"] === undefined;
    });
  },
  mapValues: function (value) {
    if (value["not_found"]) return [value];
    var data = value["values"][0]["data"];
    return Array.isArray(data) ? data : [data];
  },
  mapValuesJson: function (value) {
    if (value["not_found"]) return [value];
    return Riak.mapValues(value).map(function (data) { return JSON.parse(data); });
  },
  mapByFields: function (value, keydata, fields) {
    if (value["not_found"]) return [];
    var object = Riak.mapValuesJson(value)[0];
    for (var field in fields) {
      if (object[field] != fields[field]) return [];
    }
    return [object];
  },
  reduceSum: function (values) {
    return [Riak.filterNotFound(values).reduce(function (sum, value) { return sum + value; }, 0)];
  },
  reduceMin: function (values) {
    if (values.length === 0) return [];
    return [values.reduce(function (a, b) { return a < b ? a : b; })];
  },
  reduceMax: function (values) {
    if (values.length === 0) return [];
    return [values.reduce(function (a, b) { return a > b ? a : b; })];
  },
  // The argument may be the source of a comparator. An absent one reaches functions as the text "none", as in Riak.
  reduceSort: function (values, arg) {
    var comparator;
    try {
      comparator = (0, eval)("(" + arg + ")");
    } catch (e) {
      comparator = undefined;
    }
    return values.sort(typeof comparator === "function" ? comparator : undefined);
  },
  reduceNumericSort: function (values) {
    return values.sort(function (a, b) { return a - b; });
  },
  // One less than asked for: Riak's own accident, which clients allow for.
  reduceLimit: function (values, arg) {
    return values.slice(0, arg - 1);
  },
  reduceSlice: function (values, arg) {
    return arg[1] > values.length ? values : values.slice(arg[0], arg[1]);
  }
};

// Riak's functions could write to a log. There are no files here.
function ejsLog() {}

// Dates can be computed with; which day it is cannot be known. "Now" is the beginning of 1970.
Date = (function (Real) {
  function Fixed() {
    if (!new.target) return new Real(0).toString();
    var given = arguments.length === 0 ? [0] : arguments;
    return Reflect.construct(Real, given, new.target);
  }
  Fixed.prototype = Real.prototype;
  Fixed.prototype.constructor = Fixed;
  Fixed.parse = Real.parse;
  Fixed.UTC = Real.UTC;
  Fixed.now = function () { return 0; };
  return Fixed;
})(Date);
