import { serveMachine } from "../../emulator/worker.ts";
import { PageWorker } from "./page-worker.ts";

serveMachine(new PageWorker());
