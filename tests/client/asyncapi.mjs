// Validates the AsyncAPI document that ABOUT.document holds with the public parser.
import { Parser } from "@asyncapi/parser";

const { document } = JSON.parse(process.env.ABOUT);
const { document: parsed, diagnostics } = await new Parser().parse(JSON.stringify(document));
const errors = diagnostics.filter(({ severity }) => severity === 0);
console.log(JSON.stringify({ isValid: !!parsed && !errors.length, errors, version: parsed && parsed.version() }));
