// An encoder of the few protobuf messages that ONNX models need: onnx.proto's ModelProto, GraphProto, NodeProto,
// AttributeProto, TensorProto, ValueInfoProto.

const encoder = new TextEncoder();

function varint(value) {
  const bytes = [];
  // 64 bits of a negative number, too.
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest === 0n ? low : low | 0x80);
  } while (rest !== 0n);
  return bytes;
}

const number = (field, value) => [...varint(field << 3), ...varint(value)];
const bytes = (field, content) => [...varint((field << 3) | 2), ...varint(content.length), ...content];
const text = (field, value) => bytes(field, encoder.encode(value));
const float = (field, value) => [...varint((field << 3) | 5), ...new Uint8Array(Float32Array.of(value).buffer)];

const [FLOAT, INT64] = [1, 7];

/** A constant. */
export function tensor(name, dims, values) {
  const type = values instanceof BigInt64Array ? INT64 : FLOAT;
  const raw = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return [...dims.flatMap((size) => number(1, size)), ...number(2, type), ...text(8, name), ...bytes(9, raw)];
}

function attribute(name, value) {
  // FLOAT is 1, INT 2, INTS 7.
  if (Array.isArray(value)) {
    return [...text(1, name), ...value.flatMap((one) => number(8, one)), ...number(20, 7)];
  }
  return Number.isInteger(value)
    ? [...text(1, name), ...number(3, value), ...number(20, 2)]
    : [...text(1, name), ...float(2, value), ...number(20, 1)];
}

/** An operator. */
export function node(type, inputs, outputs, attributes = {}) {
  return [
    ...inputs.flatMap((name) => text(1, name)),
    ...outputs.flatMap((name) => text(2, name)),
    ...text(4, type),
    ...Object.entries(attributes).flatMap(([name, value]) => bytes(5, attribute(name, value))),
  ];
}

function valueInfo(name, dims) {
  const shape = dims.flatMap((size) => bytes(1, number(1, size)));
  const type = bytes(1, [...number(1, FLOAT), ...bytes(2, shape)]);
  return [...text(1, name), ...bytes(2, type)];
}

/** A model of x and y; `yDims` where y has another shape. */
export function model(nodes, initializers, dims, yDims = dims) {
  const graph = [
    ...nodes.flatMap((one) => bytes(1, one)),
    ...text(2, "bcnorm"),
    ...initializers.flatMap((one) => bytes(5, one)),
    ...bytes(11, valueInfo("x", dims)),
    ...bytes(12, valueInfo("y", yDims)),
  ];
  // IR version 8, opset 17.
  return Uint8Array.from([...number(1, 8), ...bytes(7, graph), ...bytes(8, number(2, 17))]);
}
