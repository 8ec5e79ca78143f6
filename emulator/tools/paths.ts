import { fileURLToPath } from "node:url";

/** The package's own folder: this file is two folders below it, in the sources and in dist/node alike. */
export const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));
/** What guests/build.sh leaves. */
export const GUESTS = `${PACKAGE}guests/out/`;
