import { expose } from "comlink";
import "./errors.ts";
import { WorkerStation } from "./station.ts";

expose(new WorkerStation());
