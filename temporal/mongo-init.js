// Makes the replica set of one member if there is none, then waits until it takes writes. Safe to run again.
const password = encodeURIComponent(process.env.MONGO_PASSWORD);
const admin = connect(`mongodb://conman:${password}@mongo:27017/admin?directConnection=true`);

function isInitiated() {
  try {
    return admin.adminCommand({ replSetGetStatus: 1 }).ok === 1;
  } catch (error) {
    if (error.codeName === "NotYetInitialized") {
      return false;
    }
    throw error;
  }
}

if (!isInitiated()) {
  admin.adminCommand({ replSetInitiate: { _id: "conman", members: [{ _id: 0, host: "mongo:27017" }] } });
}
for (let waited = 0; !admin.hello().isWritablePrimary; waited += 1) {
  if (waited === 60) {
    throw new Error("the replica set has no primary after 60 s");
  }
  sleep(1000);
}
