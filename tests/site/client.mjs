// What an application in another language does: AWS SDK for JavaScript, with no endpoint of its own.
// Puts and gets an object, and prints the caller's account.
import { GetObjectCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";

const s3 = new S3Client({});
await s3.send(new PutObjectCommand({ Bucket: "site-data", Key: "node", Body: "from node" }));
const got = await s3.send(new GetObjectCommand({ Bucket: "site-data", Key: "node" }));
if ((await got.Body.transformToString()) !== "from node") throw new Error("another object came back");
const caller = await new STSClient({}).send(new GetCallerIdentityCommand({}));
console.log(JSON.stringify({ account: caller.Account }));
