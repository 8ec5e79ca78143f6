import { Disk } from "../../disk.ts";
import { createQcow2 } from "../../formats/qcow2/create.ts";
import { open } from "../../open.ts";
import { PagedStorage } from "../../storage/pages.ts";
import { run } from "../../task.ts";

/** How much may be changed: what memory a process should take. */
const LIMIT = 2 ** 30;

/** `below` under an overlay in memory. Closing it closes both. */
export async function withTemporaryOverlay(below: Disk): Promise<Disk> {
  const memory = new PagedStorage(LIMIT, "the temporary overlay");
  await run(createQcow2(memory, { size: below.size, backingFile: below.name, backingFormat: below.chain[0].format }));
  const overlay = await open(memory, { format: "qcow2", backing: false });
  return new Disk([...overlay.chain, ...below.chain]);
}
