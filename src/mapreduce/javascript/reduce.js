// Calls a reduce function as Riak does: on what it made before and the next inputs, batch by batch. Inputs that fill no batch
// are left over until there are no more to come; a function that got no inputs at all is called once.
(function (reduce, made, inputs, size, ends, isFirst, arg) {
  var from = 0;
  while (inputs.length - from >= size || (ends && (from < inputs.length || isFirst))) {
    made = reduce(made.concat(inputs.slice(from, from + size)), arg);
    if (!Array.isArray(made)) throw new TypeError("a reduce function must return an array");
    from = Math.min(from + size, inputs.length);
    isFirst = false;
  }
  return [made, inputs.slice(from), isFirst];
})
